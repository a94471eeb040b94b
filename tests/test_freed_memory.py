from __future__ import annotations

import platform
import resource
import subprocess
import sys
import threading

import pytest
import torch

from medmtl.freed_memory import freed_memory_kept

LARGE = 48 << 20  # bytes; above what glibc keeps by itself
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's own setting")


def pages_taken() -> int:
    """Pages that a step with four large maps takes from the system, once a few like it have been made."""

    def step() -> None:
        maps = [torch.ones(LARGE, dtype=torch.uint8) for _ in range(4)]
        del maps

    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@glibc
def test_what_is_freed_serves_the_next_allocation() -> None:
    step = 4 * LARGE // resource.getpagesize()
    assert pages_taken() > 0.9 * step
    with freed_memory_kept():
        assert pages_taken() < 0.3 * step
    assert pages_taken() > 0.9 * step


@glibc
def test_the_setting_ends_with_its_last_user() -> None:
    inside, go = threading.Event(), threading.Event()

    def use() -> None:
        with freed_memory_kept():
            inside.set()
            go.wait(30)

    other = threading.Thread(target=use)
    other.start()
    assert inside.wait(30)
    with freed_memory_kept(), freed_memory_kept():
        pass
    kept = pages_taken()
    go.set()
    other.join()
    assert kept < pages_taken() / 3


@glibc
def test_it_is_given_back_at_the_end() -> None:
    code = """
import gc, torch
from medmtl.freed_memory import freed_memory_kept
def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])
before = resident()
with freed_memory_kept():
    maps = [torch.ones(48 << 20, dtype=torch.uint8) for _ in range(8)]
    del maps
    assert resident() - before > 300e6, "nothing was kept"
assert resident() - before < 60e6, "it was not given back"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_error_inside_passes_through_and_ends_the_setting() -> None:
    with pytest.raises(ValueError, match="inside"), freed_memory_kept():
        raise ValueError("inside")


def test_without_glibc_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with freed_memory_kept():
        pass
