from __future__ import annotations

import numpy as np
import pytest
import torch

from medmtl import api
from medmtl.cli import main
from medmtl.errors import MachineError, out_of_memory

HUGE = 1 << 50


class OutOfMemoryError(RuntimeError):
    """As torch's error of a GPU is called."""


def raised_by(make: object) -> BaseException:
    assert callable(make)
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        make()
    return caught.value


def errors() -> list[tuple[BaseException, str]]:
    gpu = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")
    return [
        (raised_by(lambda: np.empty(HUGE)), "out of memory (Unable to allocate 8.00 PiB for an array with shape"),
        (raised_by(lambda: torch.empty(HUGE)), f"out of memory (asked for {4 * HUGE} bytes)"),
        (MemoryError(), "out of memory"),
        (gpu, "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB."),
    ]


@pytest.mark.covers("F32")
@pytest.mark.parametrize("number", range(4))
def test_a_lack_of_memory_is_known_whoever_says_so_and_ends_with_code_3(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, words = errors()[number]
    wanted = out_of_memory(error)
    assert wanted is not None
    assert wanted.startswith(words)

    def kinds() -> None:
        raise error

    monkeypatch.setattr(api, "kinds", kinds)
    assert main(["kinds"]) == MachineError.exit_code == 3
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), OSError(12, "memory")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert out_of_memory(error) is None
