from __future__ import annotations

import pytest
import torch

from medmtl.device import peak_bytes


def test_peak_memory_is_that_of_the_process_or_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    held = peak_bytes(torch.device("cpu"))
    assert 10_000_000 < held <= peak_bytes(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert peak_bytes(torch.device("cuda")) == 7
