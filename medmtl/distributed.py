"""Several processes that train one model: how they meet, what they exchange, and how they part.

Two kinds of exchange. *Collectives* add tensors over all processes; whoever misses one for ``LIMIT`` ends the run of
all. *Turns* are for work of unknown length that the first process does alone, such as preparing cases, a validation or
a commit: the others look at the store that torchrun keeps until its answer lies there. Meanwhile every process beats
there every few seconds, so that one that stands still is told from one that works.

Nothing is pickled: tensors are added as they are, and all else crosses as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from medmtl.errors import MachineError, MedmtlError, WorkError
from medmtl.launched import Launch, launch

LIMIT = 45.0  # seconds: a process that is lost or stands still must end the run within a minute
START = 300.0  # seconds for all processes to appear
BEAT = 2.0  # seconds between two signs of life
PARTING = 3.0  # seconds that the first process, which may keep the store, waits for the others to read its last word

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks(Launch):
    """This process among those that train together; by default it is alone, and every exchange is the identity.

    Attributes:
        store: where words are left for each other; None for a single process.
    """

    store: Store | None = field(default=None, compare=False, repr=False)
    _turns: Iterator[int] = field(default_factory=itertools.count, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes for all."""
        return self.rank == 0

    def slots(self, batch: int) -> range:
        """The slots of a joint batch whose samples this process holds; there may be none."""
        return range(self.rank, batch, self.size)

    def share(self, count: int) -> int:
        """This process's part of threads or loader processes of its machine; of one or more at least one."""
        return max(1, count // self.local_size) if count else 0

    def device(self, kind: str) -> torch.device:
        """The device of this process.

        Raises:
            MachineError: if its machine has fewer GPUs than processes.
        """
        if self.size == 1 or kind != "cuda":
            return torch.device(kind)
        if self.local >= torch.cuda.device_count():
            raise MachineError(
                f"process {self.local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
                "start as many processes as GPUs (torchrun --nproc-per-node)",
                code="B143",
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same bits on each; in place where there are several.

        Raises:
            WorkError: if another process is lost or stands still; names it.
        """
        if self.size > 1:
            try:
                distributed.all_reduce(tensor)
            except RuntimeError as error:
                raise self._lost(error) from error
        return tensor

    def gather(self, word: T) -> list[T]:
        """One JSON-able word of every process, in their order; as :meth:`sum`."""
        if self.size == 1:
            return [word]
        own = torch.frombuffer(bytearray(json.dumps(word).encode()), dtype=torch.uint8)
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(own)
        table = torch.zeros(self.size, int(self.sum(lengths).max()), dtype=torch.uint8)
        table[self.rank, : len(own)] = own
        rows = self.sum(table)
        return [json.loads(bytes(row[:n].tolist())) for row, n in zip(rows, lengths.tolist(), strict=True)]

    def first(self, work: Callable[[], T]) -> T:
        """What the first process's work gives, a JSON-able value, however long it takes; the others wait.

        Raises:
            WorkError: in the others, if the first process fails, is lost or stands still.
        """
        if self.store is None:
            return work()
        name = f"turn/{next(self._turns)}"
        if not self.is_first:
            return cast(T, self._answer(self.store, name))
        try:
            value = work()
        except BaseException as error:
            with suppress(RuntimeError):
                self.store.set(name, json.dumps({"failed": _words(error)}))
            raise
        self.store.set(name, json.dumps({"value": value}))
        return value

    def meet(self) -> None:
        """Wait for all, however long each takes.

        Raises:
            WorkError: if another process is lost or stands still.
        """
        if self.store is None:
            return
        place = f"turn/{next(self._turns)}"
        self.store.set(f"{place}/{self.rank}", "here")
        for rank in range(self.size):
            self._await(self.store, f"{place}/{rank}", rank)

    def _answer(self, store: Store, name: str) -> object:
        said = json.loads(self._await(store, name, 0))
        if "failed" in said:
            raise WorkError(f"process {self.rank} ends because process 0 could not go on: {said['failed']}")
        return said["value"]

    def _await(self, store: Store, name: str, rank: int) -> bytes:
        """What a process leaves in the store, while it shows signs of life."""
        beat, heard, pause = b"", time.monotonic(), 0.002
        try:
            while not store.check([name]):
                now = store.get(f"beat/{rank}") if store.check([f"beat/{rank}"]) else b""
                if now != beat:
                    beat, heard = now, time.monotonic()
                if time.monotonic() - heard > LIMIT:
                    raise WorkError(f"process {rank} has shown no sign of life for {LIMIT:.0f} s{_RESUME}")
                time.sleep(pause)
                pause = min(0.1, 1.5 * pause)
            return bytes(store.get(name))
        except RuntimeError as error:  # of the store: whoever keeps it is gone
            raise WorkError(f"process {rank}, or the store of all processes, is gone{_RESUME}") from error

    def _lost(self, error: RuntimeError) -> WorkError:
        """Who did not come to an exchange: those that do not say within two seconds that they came."""
        missing = list(range(self.size))
        with suppress(RuntimeError):
            assert self.store is not None
            self.store.set(f"came/{self.rank}", "")
            deadline = time.monotonic() + 2
            while missing and time.monotonic() < deadline:
                missing = [rank for rank in missing if not self.store.check([f"came/{rank}"])]
                time.sleep(0.05)
        who = "another process" if len(missing) in (0, self.size) else f"process {', '.join(map(str, missing))}"
        why = " ".join(str(error).split())[:200]
        return WorkError(f"{who} of {self.size} is gone or did not answer for {LIMIT:.0f} s{_RESUME} ({why})")


ALONE = Ranks()
_RESUME = "; the last commit is whole: go on with --resume"


@contextmanager
def joined(place: Launch | None = None) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, and part from them at the end; alone, nothing is done.

    Args:
        place: by default what the environment says.

    Raises:
        WorkError: if not all appear.
    """
    found = launch() if place is None else place
    if found.size == 1:
        yield ALONE
        return
    # a collective on a GPU then raises in the thread that waits for it, instead of ending the process from another
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    try:
        keeper, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=START))))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if distributed.is_nccl_available() and torch.cuda.is_available() else "gloo",
            store=PrefixStore("group", keeper),
            rank=found.rank,
            world_size=found.size,
            timeout=timedelta(seconds=LIMIT),
        )
    except (RuntimeError, ValueError) as error:
        raise WorkError(f"the {found.size} processes did not meet: {' '.join(str(error).split())[:300]}") from error
    store = PrefixStore("medmtl", keeper)
    store.set_timeout(timedelta(seconds=LIMIT))
    ended = threading.Event()
    threading.Thread(target=_beat, args=(store, found.rank, ended), name="beat", daemon=True).start()
    try:
        yield Ranks(found.rank, found.size, found.local, found.local_size, store)
        distributed.destroy_process_group()
    finally:
        ended.set()
        with suppress(RuntimeError):
            _part(store, found)


def _beat(store: Store, rank: int, ended: threading.Event) -> None:
    with suppress(RuntimeError):  # of a store that is gone, which the main thread will find too
        for number in itertools.count():
            store.set(f"beat/{rank}", str(number))
            if ended.wait(BEAT):
                return


def _part(store: Store, found: Launch) -> None:
    store.set(f"left/{found.rank}", "")
    deadline = time.monotonic() + PARTING
    names = [f"left/{rank}" for rank in range(found.size)]
    while found.rank == 0 and not all(store.check([name]) for name in names) and time.monotonic() < deadline:
        time.sleep(0.05)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, MedmtlError) else f"{type(error).__name__}: {error}"
