from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import medmtl
from medmtl.device import Precision, autocast, describe_device, peak_bytes, true_fp32
from medmtl.errors import InputError


@pytest.mark.covers("B164")
@pytest.mark.parametrize("name", ["gpu", "cuda:0", "CUDA", "mps", "", None])
def test_a_device_of_another_name_is_not_taken_for_the_cpu(name: Any, trained_run: Path) -> None:
    with pytest.raises(InputError, match=r"^\[B164\] no device is called .*; known: auto, cpu, cuda$"):
        describe_device(name)
    with pytest.raises(InputError, match="no device is called"):
        medmtl.load(trained_run, device=name)


def test_peak_memory_is_that_of_the_process_or_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    held = peak_bytes(torch.device("cpu"))
    assert 10_000_000 < held <= peak_bytes(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert peak_bytes(torch.device("cuda")) == 7


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_network_computes_in_the_planned_precision(precision: Precision, expected: torch.dtype) -> None:
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_fp32_of_a_gpu_is_no_tf32_inside_and_what_it_was_afterwards() -> None:
    cudnn = torch.backends.cudnn
    assert cudnn.allow_tf32
    with pytest.raises(RuntimeError, match="inside"), true_fp32():
        with true_fp32():
            pass
        assert not cudnn.allow_tf32
        raise RuntimeError("inside")
    assert cudnn.allow_tf32
    try:
        cudnn.conv.fp32_precision = "ieee"
        with true_fp32():
            assert cudnn.conv.fp32_precision == "ieee"
        assert cudnn.conv.fp32_precision == "ieee"
    finally:
        cudnn.allow_tf32 = True
