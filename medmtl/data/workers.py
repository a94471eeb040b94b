"""Batches made ahead by worker processes, and what is said when one of them fails.

An error crosses as data, so that every one arrives and its sentence stays whole. A worker that dies or stands still
ends the training with its cause, the step it was at and the cases of that step.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from medmtl import errors
from medmtl.data.batch import Batch
from medmtl.data.loader import StepViews
from medmtl.errors import MachineError, MedmtlError, WorkError

logger = logging.getLogger(__name__)

PREFETCH = 2  # batches made ahead per worker
LOOK_SECONDS = 5.0  # between two looks at the workers while a batch is waited for
STILL_SECONDS = 45.0  # after which a worker that neither computes nor reads is taken for stuck
LONGEST_SECONDS = 600.0  # for one batch, whatever the worker does
SHARED_MEMORY = Path("/dev/shm")

_WITHOUT = "set plan.workers: 0 to load without it"
_LARGER_SHARED_MEMORY = "enlarge it (docker run --shm-size=2g) or set plan.workers: 0"


@dataclass(frozen=True)
class _Failure:
    """An error as a worker hands it over: as data, because not every exception can be pickled."""

    kind: type[MedmtlError]
    message: str
    code: str | None = None
    trace: str = ""

    def error(self) -> MedmtlError:
        error = self.kind(self.message)
        error.code = self.code
        if self.trace:
            error.add_note(self.trace)
        return error


class _Board:
    """What each worker is at, in memory shared with the parent, who reads it when a worker is dead or silent.

    Anonymous memory, which no limit on ``/dev/shm`` counts.
    """

    def __init__(self, workers: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 16 * workers)).cast("q")  # per worker: its pid, and its step
        self._mine = 0

    def enter(self, index: int) -> None:
        self._mine = index
        self._cells[2 * index] = os.getpid()

    def begin(self, step: int) -> None:
        self._cells[2 * self._mine + 1] = step + 1

    def end(self, step: int) -> None:
        self._cells[2 * self._mine + 1] = -step - 1

    def pids(self) -> list[int]:
        return list(self._cells[::2])

    def making(self, index: int) -> int | None:
        """The step that a worker has begun and not ended."""
        state = self._cells[2 * index + 1]
        return state - 1 if state > 0 else None


class _Handover(Dataset[Batch | _Failure]):
    """A dataset whose errors are returned instead of raised."""

    def __init__(self, dataset: StepViews, board: _Board | None) -> None:
        self._dataset = dataset
        self._board = board

    def __getitem__(self, step: int) -> Batch | _Failure:
        if self._board is not None:
            self._board.begin(step)
        made = self._make(step)
        if self._board is not None:
            self._board.end(step)
        return made

    def _make(self, step: int) -> Batch | _Failure:
        try:
            batch = self._dataset[step]
            if self._board is not None:
                _share(batch)
        except MedmtlError as error:
            # a subclass of elsewhere may want other arguments than a message
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
            return _Failure(kind, str(error), error.code, traceback.format_exc())
        except Exception as error:
            what = f"step {step} ({self._dataset.named(step)}) could not be loaded: {type(error).__name__}: {error}"
            return _Failure(WorkError, what, trace=traceback.format_exc())
        return batch


def make_loader(
    dataset: StepViews, first: int, limit: int | None, workers: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Batches of the steps from ``first``, made ahead by worker processes.

    Args:
        dataset: the views.
        first: first step.
        limit: one past the last step; None for no end.
        workers: processes; 0 makes batches in this process.
        device: memory is pinned for a CUDA device.

    Raises:
        MachineError, WorkError: as :class:`StepViews`; also WorkError if a worker dies or stands still, and
            MachineError if there is too little shared memory.
    """
    board = _Board(workers) if workers else None
    loader = DataLoader(
        _Handover(dataset, board),
        batch_size=None,
        sampler=_steps(first, limit),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=partial(_enter, board) if board else None,
        multiprocessing_context="fork" if workers and os.name == "posix" else None,
        pin_memory=device.type == "cuda",
        timeout=LOOK_SECONDS if workers else 0,
        generator=torch.Generator(),  # its own, so that making a loader draws nothing from the training's
    )
    batches, processes = _start(loader)
    # also where the interpreter ends first: it would ask them by SIGTERM, to which they are deaf, and wait
    ending = Finalize(None, _end, (processes,), exitpriority=0)
    watch = _Watch(board, processes) if board else None
    try:
        if watch:
            watch.start()
        for step in _steps(first, limit):
            batch = _await(batches, step, dataset, processes, watch) if watch else next(batches)
            if isinstance(batch, _Failure):
                raise batch.error()
            yield batch
    finally:
        if watch:
            watch.end()
        # ends the workers here: a traceback keeps this frame, and the collector may come in a thread that they wait for
        del batches
        ending()


def _steps(first: int, limit: int | None) -> Iterable[int]:
    return itertools.count(first) if limit is None else range(first, limit)


def _start(loader: DataLoader[Batch | _Failure]) -> tuple[Iterator[Batch | _Failure], list[BaseProcess]]:
    """Start the workers; a dead one is found by whoever waits for its batch.

    torch would also raise from a handler of SIGCHLD, that is between any two lines of the main thread, in the middle of
    a step or of a commit. So that handler is taken out again.
    """
    others = set(multiprocessing.active_children())
    main = os.name == "posix" and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if main else None
    batches = iter(loader)
    if main:
        signal.signal(signal.SIGCHLD, handler)
    return batches, [process for process in multiprocessing.active_children() if process not in others]


def _enter(board: _Board, index: int) -> None:
    """Run in each worker before its first batch."""
    # requests, also those to a whole group of processes, are left to the parent, which still wants batches for the
    # step at which all stop, commits, and then ends its workers; a worker whose parent is gone ends by itself
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    board.enter(index)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Whatever they are at: one may be stopped, and all are deaf to requests."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


class _Watch:
    """Looks at the workers while a batch is waited for, and kills them where they stand still.

    It is a thread, because who waits may not be able to look: a batch that was announced is fetched from the worker
    that made it, and one that was stopped meanwhile does not answer. Time is counted in looks, not by the clock: a
    machine that sleeps, or a group of processes that is stopped and continued, is not stuck.

    Attributes:
        board: what they are at.
        gave_up: seconds of waiting after which they were killed; None where they were not.
    """

    def __init__(self, board: _Board, processes: Sequence[BaseProcess]) -> None:
        self.gave_up: float | None = None
        self.board = board
        self._processes = processes
        self._asked = False
        self._effort: list[tuple[str, ...] | None] = []
        self._waited = self._still = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="loader watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._effort, self._waited, self._still = [], 0.0, 0.0
        self._asked = True
        try:
            yield
        finally:
            self._asked = False

    def look(self) -> bool:
        """One look; whether it is time to give up."""
        if not self._asked:
            return False
        self._waited += LOOK_SECONDS
        before, self._effort = self._effort, [_effort(pid) for pid in self.board.pids()]
        self._still = self._still + LOOK_SECONDS if self._effort == before else 0.0
        return self._still >= STILL_SECONDS or self._waited >= LONGEST_SECONDS

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if self.look():
                self.gave_up = self._waited
                for process in self._processes:  # which ends whatever is read from them
                    process.kill()
                return


def _await(
    batches: Iterator[Batch | _Failure], step: int, dataset: StepViews, processes: Sequence[BaseProcess], watch: _Watch
) -> Batch | _Failure:
    """The next batch, or what became of the worker that owes it."""
    board = watch.board
    with watch.waiting():
        while True:
            try:
                return next(batches)
            except (RuntimeError, OSError, EOFError) as error:
                timed_out = "timed out" in str(error)
                if not timed_out:  # by its death, which may be seen a moment later
                    wait([process.sentinel for process in processes], LOOK_SECONDS)
                if (waited := watch.gave_up) is None:
                    failure = _lost(dataset, board, processes)
                else:
                    failure = _stuck(step, waited, dataset, board)
                if failure is None and not timed_out:
                    raise
            if failure is not None:
                _end(processes)
                return failure


def _effort(pid: int) -> tuple[str, ...] | None:
    """Page faults served from the disk and processor time of a process so far; None where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[9], fields[11], fields[12]


def _lost(dataset: StepViews, board: _Board, processes: Sequence[BaseProcess]) -> _Failure | None:
    for process in processes:
        code = process.exitcode
        if code is None:
            continue
        index = board.pids().index(process.pid) if process.pid in board.pids() else None
        who = f"loader process {index}" if index is not None else "a loader process"
        step = board.making(index) if index is not None else None
        where = f"while step {step} was loaded: {dataset.named(step)}" if step is not None else "between two steps"
        if code == -signal.SIGBUS and step is not None:
            return _Failure(MachineError, f"{who} was killed by SIGBUS {where}; {_shared_memory()}")
        return _Failure(WorkError, f"{who} {_death(code)} {where}; {_WITHOUT}")
    return None


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    memory = ", probably for lack of memory," if name == "SIGKILL" else ""
    return f"was killed by {name} (signal {-code}){memory}"


def _stuck(step: int, waited: float, dataset: StepViews, board: _Board) -> _Failure:
    index = next((i for i in range(len(board.pids())) if board.making(i) == step), None)
    who = f"loader process {index} stands still" if index is not None else "the loader stands still"
    return _Failure(
        WorkError,
        f"{who}: after {waited:.0f} s step {step} is not loaded ({dataset.named(step)}); look at the files of these "
        f"cases and at their disk, or {_WITHOUT}",
    )


def _share(batch: Batch) -> None:
    """Move a batch to shared memory here, where a failure is an error, and not in the thread that sends it away."""
    tensors = [
        tensor
        for view in batch.views.values()
        for tensor in (view.image_BCDHW, view.covariates_BN, *view.targets.values(), *view.present.values())
    ]
    try:
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        size = sum(tensor.nbytes for tensor in tensors) / 1e6
        raise MachineError(
            f"step {batch.step} takes {size:.1f} MB of shared memory ({error}); {_shared_memory()}"
        ) from error


def _shared_memory() -> str:
    size = f"{shutil.disk_usage(SHARED_MEMORY).total / 1e6:.1f} MB" if SHARED_MEMORY.is_dir() else "of unknown size"
    return f"{SHARED_MEMORY} is {size}: {_LARGER_SHARED_MEMORY}"
