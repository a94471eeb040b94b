from __future__ import annotations

import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmtl import api, freed_memory
from medmtl.freed_memory import freed_memory_kept
from tests.conftest import TINY

IN_A_PROCESS = """
import resource, torch
from medmtl.freed_memory import freed_memory_kept
PAGE, LARGE = resource.getpagesize(), 48 << 20  # bytes of a map that glibc does not keep by itself

def step():
    maps = [torch.ones(LARGE, dtype=torch.uint8) for _ in range(4)]
    del maps

def pages_taken():
    "Of the system, by the cheapest of ten steps: how many it takes until the heap has its shape depends on addresses."
    taken = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
        taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(taken)

def resident():
    return PAGE * int(open("/proc/self/statm").read().split()[1])

whole, before = 4 * LARGE // PAGE, resident()
assert pages_taken() > 0.9 * whole, "the C library keeps it in any case"
with freed_memory_kept():
    assert pages_taken() < 0.3 * whole, "it was taken anew"
    assert resident() - before > 3 * LARGE, "nothing was kept"
assert resident() - before < LARGE, "it was not given back"
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's own setting")
def test_what_a_step_frees_serves_the_next_and_is_given_back_at_the_end() -> None:
    subprocess.run([sys.executable, "-c", IN_A_PROCESS], check=True, timeout=120)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(freed_memory, "_call", lambda *call: found.append(call))
    return found


def test_training_evaluation_and_prediction_keep_it(
    tiny_cohort: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    def kept(action: Callable[[], Any]) -> Any:
        calls.clear()
        result = action()
        assert calls[0][0] == "mallopt" and calls[-1] == ("malloc_trim", 0)
        return result

    run = kept(lambda: api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides={**TINY, "training.steps": 1}))
    kept(lambda: api.evaluate(run, device="cpu"))
    model = api.load(run, device="cpu")
    images = model.training_cohort()[0].images
    kept(lambda: model.predict(images))
    kept(lambda: api.predict(run, [f"{name}={file}" for name, file in images.items()], tmp_path / "out", device="cpu"))


def test_the_setting_ends_with_its_last_user(calls: list[tuple[Any, ...]]) -> None:
    inside, go = threading.Event(), threading.Event()

    def use() -> None:
        with freed_memory_kept():
            inside.set()
            go.wait(30)

    other = threading.Thread(target=use)
    other.start()
    assert inside.wait(30)
    begun = list(calls)
    assert begun and "malloc_trim" not in {name for name, *_ in begun}
    with freed_memory_kept(), freed_memory_kept():
        pass
    assert calls == begun
    go.set()
    other.join()
    assert calls[-1] == ("malloc_trim", 0)


def test_an_error_inside_passes_through_and_ends_the_setting(calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ValueError, match="inside"), freed_memory_kept():
        raise ValueError("inside")
    assert calls[-1] == ("malloc_trim", 0)


def test_without_such_a_setting_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def library(name: None) -> object:
        asked.append(name)
        return object()

    monkeypatch.setattr("ctypes.CDLL", library)
    with freed_memory_kept():
        pass
    assert asked
