"""The kernel kills a process before its Nth system call that changes the disk, for every N."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medmtl import checkpoint
from medmtl.checkpoint.reading import is_whole
from medmtl.data.cache import LEFTOVER_SECONDS, PreparedCache
from medmtl.data.case import Case
from medmtl.data.prepared import Preparation
from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import evaluate_selection, load_scores, own_selection
from medmtl.files import make_private_folder
from medmtl.run_folder import RunFolder
from tests.faults.processes import CONTEXT, state, wait_until

# a question mark: the kernel of another processor may lack it
CHANGING = (
    "?open,?openat,?creat,?write,?writev,?pwrite64,?fsync,?fdatasync,?rename,?renameat,?renameat2,?unlink,?unlinkat,?rmdir,"
    "?mkdir,?mkdirat,?ftruncate,?fallocate,?link,?linkat,?symlink,?symlinkat,?chmod,?fchmod,?fchmodat"
)
STRACE = shutil.which("strace")
ANY_TRACER = (0x59616D61, 2**64 - 1)  # PR_SET_PTRACER, PR_SET_PTRACER_ANY

Work = Callable[[], object]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Call:
    """A system call of a process: the ``nth`` of its name."""

    name: str
    nth: int
    arguments: str


def wait_for_the_tracer(get_ready: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    """In the process that is traced: everything before the work, then a stop until somebody watches."""
    torch.set_num_threads(1)
    work = get_ready(*arguments)
    allow_any_tracer()
    os.kill(os.getpid(), signal.SIGSTOP)
    work()


def allow_any_tracer() -> None:
    """Also where only a parent may trace; without effect where there is no such rule."""
    import ctypes

    ctypes.CDLL(None).prctl(*ANY_TRACER, 0, 0, 0)


def run_traced(log: Path, call: Call | None, get_ready: Callable[..., Work], *arguments: Any) -> int:
    """Run the work; with a call, killed before it. Returns the exit code."""
    assert STRACE is not None
    process = CONTEXT.Process(target=wait_for_the_tracer, args=(get_ready, arguments))
    process.start()
    assert process.pid is not None
    pid = process.pid
    wait_until(lambda: state(pid) in ("T", ""))
    words = [STRACE, "-f", "-qq", "-o", str(log), "-e", f"trace={CHANGING}"]
    if call is not None:
        words += ["-e", f"inject={call.name}:signal=SIGKILL:when={call.nth}"]
    with subprocess.Popen([*words, "-p", str(pid)], stderr=subprocess.PIPE, text=True) as tracer:
        try:
            wait_until(lambda: is_traced(pid) or tracer.poll() is not None)
            if tracer.poll() is not None:
                assert tracer.stderr is not None
                pytest.skip(f"processes cannot be traced here: {tracer.stderr.read().strip()}")
            os.kill(pid, signal.SIGCONT)
            process.join(60)
        finally:
            process.kill()
    assert process.exitcode is not None
    return int(process.exitcode)


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def changing_calls(log: Path) -> Iterator[Call]:
    """The calls of a finished run that change the disk."""
    seen: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        if match := re.match(r"(?:\d+ +)?(\w+)\((.*)", line):
            name, arguments = match.groups()
            seen[name] += 1
            if not name.startswith("open") or re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", arguments):
                yield Call(name, seen[name], arguments)


def kill_at_every_call(
    folder: Path,
    prepare: Callable[[Path], tuple[Any, ...]],
    get_ready: Callable[..., Work],
    verify: Callable[..., None],
) -> list[Call]:
    """Prepare a place, do the work killed before call N, and verify; for every N.

    Args:
        folder: for the places.
        prepare: makes a place and returns the arguments of ``get_ready``.
        get_ready: everything that comes before the work; returns the work.
        verify: takes the place's arguments and whether the named calls before N were done.
    """
    if STRACE is None:
        pytest.skip("needs strace")
    log = folder / "strace.txt"
    assert run_traced(log, None, get_ready, *prepare(folder / "dry")) == 0
    calls = list(changing_calls(log))
    for place, call in enumerate(calls):
        arguments = prepare(folder / f"{place}")
        assert run_traced(log, call, get_ready, *arguments) == -signal.SIGKILL
        killed = list(changing_calls(log))
        assert [(c.name, c.nth) for c in killed] == [(c.name, c.nth) for c in calls[: place + 1]]
        verify(*arguments, calls[:place])
        shutil.rmtree(folder / f"{place}")
    return calls


def commit(folder: Path, step: int) -> None:
    torch.manual_seed(step)
    tensors = {"model": {"w": torch.randn(5, 3)}, "optimiser": {"w.exp_avg": torch.randn(5, 3)}}
    checkpoint.save(folder, step, tensors, {"step": step}, keep=2)


def ready_to_commit(folder: Path) -> Work:
    return lambda: commit(folder, 3)


def two_commits(folder: Path) -> tuple[Path]:
    for step in (1, 2):
        commit(folder, step)
    return (folder,)


def verify_commit(folder: Path, done: list[Call]) -> None:
    appeared = any(call.name.startswith("rename") and "step-000003" in call.arguments.split(",")[-1] for call in done)
    found = checkpoint.load(folder)
    assert found is not None and found.step == (3 if appeared else 2)
    torch.manual_seed(found.step)
    assert torch.equal(found.tensors["model"]["w"], torch.randn(5, 3))
    assert sum(is_whole(path, int(path.name[5:])) for path in folder.glob("step-*")) >= 2
    checkpoint.tidy(folder, keep=2)
    assert {path.name for path in folder.iterdir()} == {f"step-{found.step - 1:06}", f"step-{found.step:06}", "last"}
    assert (folder / "last").read_text() == f"step-{found.step:06}\n"
    commit(folder, 4)
    assert {path.name for path in folder.iterdir()} <= {"step-000002", "step-000003", "step-000004", "last"}
    assert (folder / "last").read_text() == "step-000004\n"


@pytest.mark.covers("F02", "F06", "F07")
@pytest.mark.covers("P09", "P10")
def test_a_commit(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    calls = kill_at_every_call(tmp_path, two_commits, ready_to_commit, verify_commit)
    record_property("killed before", f"{len(calls)} calls: {dict(Counter(call.name for call in calls))}")
    assert {"mkdir", "openat", "write", "fsync", "rename", "rmdir"} <= {call.name for call in calls}
    assert len(calls) >= 25


def scan(folder: Path) -> tuple[Path, Case]:
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 3, (5, 6, 4))
    paths = {name: folder / f"{name}.nii" for name in ("t1", "mask")}
    for path, dtype in zip(paths.values(), (np.float32, np.uint8), strict=True):
        nib.save(nib.Nifti1Image(array.astype(dtype), np.eye(4)), path)  # type: ignore[no-untyped-call]
    return folder / "cache", Case("c", "c", None, 2, {"t1": paths["t1"]}, files={"mask": paths["mask"]})


def cache_in(folder: Path) -> PreparedCache:
    return PreparedCache(folder, Preparation((1.0, 1.0, 1.0), ("t1",), {"organ": "mask"}))


def ready_to_prepare(folder: Path, case: Case) -> Work:
    cache = cache_in(folder)
    make_private_folder(folder)
    return lambda: cache.get(case)  # in this thread: strace counts each thread's calls apart


def verify_entry(folder: Path, case: Case, done: list[Call]) -> None:
    appeared = any(call.name.startswith("rename") for call in done)
    entries = [path for path in folder.glob("*") if not path.name.startswith(".")]
    assert len(entries) == appeared
    before = {path: path.stat().st_ino for path in entries}
    for leftover in folder.glob(".tmp-*"):
        os.utime(leftover, (0, os.stat(leftover).st_mtime - 2 * LEFTOVER_SECONDS))
    cache = cache_in(folder)
    cache.ensure([case], 1)
    found = cache.get(case)
    assert np.array_equal(found.image_CDHW[0], found.labels["organ"])
    assert not cache.rebuilt
    assert all(path.stat().st_ino == number for path, number in before.items())
    assert len(list(folder.iterdir())) == 1


@pytest.mark.covers("F03")
def test_a_cache_entry(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    calls = kill_at_every_call(tmp_path, scan, ready_to_prepare, verify_entry)
    record_property("killed before", f"{len(calls)} calls: {dict(Counter(call.name for call in calls))}")
    assert len(calls) > 10


def ready_to_report(run: Path, folder: Path) -> Work:
    runs = [RunFolder.open(run)]
    scores = load_scores(own_selection(runs, "val"), folder)
    return lambda: write_report(scores, runs)


@pytest.mark.covers("F05")
def test_a_report(trained_run: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    runs = [RunFolder.open(trained_run)]
    scores = evaluate_selection(own_selection(runs, "val"), tmp_path / "scores", device="cpu")
    whole = write_report(scores, runs).read_bytes()

    def prepare(folder: Path) -> tuple[Path, Path]:
        shutil.copytree(tmp_path / "scores", folder)
        (folder / "report.html").write_text("the old page")
        return trained_run, folder

    def verify(run: Path, folder: Path, done: list[Call]) -> None:
        page = folder / "report.html"
        appeared = any(call.name.startswith("rename") for call in done)
        assert page.read_bytes() == (whole if appeared else b"the old page")

    calls = kill_at_every_call(tmp_path, prepare, ready_to_report, verify)
    record_property("killed before", f"{len(calls)} calls: {dict(Counter(call.name for call in calls))}")
    assert [call.name for call in calls if not call.name.startswith(("open", "write"))] == ["fsync", "rename", "fsync"]
    assert write_report(load_scores(own_selection(runs, "val"), tmp_path / "scores"), runs).read_bytes() == whole
