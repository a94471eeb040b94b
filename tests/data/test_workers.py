from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from medmtl.data import workers as worker_processes
from medmtl.data.case import Case
from medmtl.data.workers import make_loader
from medmtl.errors import InputError, MachineError, WorkError
from tests.data.loading import CPU, Made, made_cohort, make


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are looked at every 5 s; a test has less time."""
    monkeypatch.setattr(worker_processes, "LOOK_SECONDS", 0.2)


def broken(cohort: Made, case_id: str) -> Iterator[Case]:
    """The cohort's first case under a name that fails."""
    case = cohort[0][0]
    yield Case(case_id, "p", None, 41, case.images, files=case.files)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("case_id", "kind", "message"),
    [
        ("refused", InputError, "[B051] scan.nii: found a cut stream; expected a whole one; copy it again"),
        (
            "full",
            MachineError,
            "case 'full' (row 41) could not be loaded: out of memory; lower plan.workers or plan.memory_gb",
        ),
        pytest.param(
            "vast",
            MachineError,
            f"case 'vast' (row 41) could not be loaded: out of memory (asked for {4 << 50} bytes); lower "
            "plan.workers or plan.memory_gb",
            marks=pytest.mark.covers("F32"),
        ),
        ("odd", WorkError, "case 'odd' (row 41) could not be loaded: ZeroDivisionError: by nothing"),
    ],
)
def test_an_error_arrives_as_one_sentence(
    cohort: Made, case_id: str, kind: type[Exception], message: str, workers: int
) -> None:
    with pytest.raises(kind) as caught:
        list(make_loader(make(cohort, cases=list(broken(cohort, case_id))), 0, 4, workers, CPU))
    assert str(caught.value) == message


@pytest.mark.usefixtures("quick_watch")
@pytest.mark.parametrize(
    ("case_id", "cause"),
    [
        (
            "deadly",
            r"loader process 0 was killed by SIGKILL \(signal 9\), probably for lack of memory, while step 3 was "
            r"loaded: cases 'deadly' \(row 41\), 'deadly' \(row 41\)",
        ),
        ("leaving", r"loader process 0 ended with code 3 while step 3 was loaded: cases 'leaving' \(row 41\)"),
    ],
)
def test_a_dead_worker_is_an_error_with_its_cause(cohort: Made, case_id: str, cause: str) -> None:
    with pytest.raises(WorkError, match=cause):
        list(make_loader(make(cohort, cases=list(broken(cohort, case_id))), 3, 5, 1, CPU))


def test_a_batch_that_shared_memory_does_not_hold_is_named_with_its_size(
    cohort: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(
        MachineError, match=r"^step 3 takes 0\.\d MB of shared memory .*; /dev/shm is .* plan\.workers: 0"
    ):
        next(make_loader(make(cohort), 3, 5, 1, CPU))


@pytest.mark.covers("F36")
@pytest.mark.parametrize(("at_work", "seconds"), [(False, 50), (True, 600)])
def test_a_worker_is_stuck_where_it_rests_and_where_a_batch_takes_ten_minutes(
    cohort: Made, monkeypatch: pytest.MonkeyPatch, at_work: bool, seconds: int
) -> None:
    looks = itertools.count()
    monkeypatch.setattr(worker_processes, "_effort", lambda pid: ("0", str(next(looks) if at_work else 0), "0"))
    board = worker_processes._Board(1)
    board.enter(0)
    board.begin(3)
    watch = worker_processes._Watch(board, [])
    assert not watch.look()  # nobody waits

    def late() -> Iterator[Any]:
        if watch.look():
            watch.gave_up = seconds
        raise RuntimeError("DataLoader timed out after 5.0 seconds")
        yield

    count = itertools.count(1)
    batches = map(lambda _: next(late()), count)
    found = worker_processes._await(batches, 3, make(cohort), [], watch)  # type: ignore[arg-type]
    assert isinstance(found, worker_processes._Failure)
    assert found.message.startswith(f"loader process 0 stands still: after {seconds} s step 3 is not loaded (cases 'c")
    assert (next(count) - 1) * worker_processes.LOOK_SECONDS == seconds


@pytest.mark.covers("F36")
@pytest.mark.usefixtures("quick_watch")
def test_a_worker_that_is_stopped_with_a_batch_ready_is_stuck(cohort: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is announced, and nobody is there to hand it over."""
    monkeypatch.setattr(worker_processes, "STILL_SECONDS", 1.0)
    loader = make_loader(make(cohort), 0, None, 1, CPU)
    next(loader)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    before = None
    while before != (before := worker_processes._effort(worker.pid)):  # until it has made all that it may
        time.sleep(0.5)
    os.kill(worker.pid, signal.SIGSTOP)
    # ends a failing test, with another sentence
    last_resort = threading.Timer(60, worker.kill)
    last_resort.start()
    with pytest.raises(
        WorkError, match=r"^(loader process 0|the loader) stands still: after \d s step \d is not loaded"
    ):
        list(itertools.islice(loader, 10))
    last_resort.cancel()
    assert not worker.is_alive()


def test_a_worker_leaves_requests_to_its_parent(cohort: Made) -> None:
    loader = make_loader(make(cohort), 0, 30, 1, CPU)
    assert next(loader).step == 0
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid, number)
    assert [batch.step for batch in loader] == list(range(1, 30))
    assert not worker.is_alive()


def test_an_interpreter_that_ends_with_a_loader_at_work_ends_its_workers(
    cohort: Made,
) -> None:
    kept = []

    def leave_open() -> None:
        kept.append(make_loader(make(cohort), 0, None, 2, CPU))
        next(kept[0])

    process = multiprocessing.get_context("fork").Process(target=leave_open)
    process.start()
    process.join(20)
    code = process.exitcode
    process.kill()
    assert code == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_batches_for_a_gpu_are_pinned(cohort: Made) -> None:
    batch = next(make_loader(make(cohort), 0, 2, 1, torch.device("cuda")))
    view = batch.views["case"]
    assert view.image_BCDHW.is_pinned()
    assert all(tensor.is_pinned() for tensor in view.targets.values())
