"""Reading, the network and writing of successive cases at the same time, each in a thread of its own.

Decompression, hashing, interpolation and compression run outside the interpreter's lock. Three cases at most are in
memory: one read ahead, one that the network looks at, one that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(read: Callable[[Item], Read], items: Sequence[Item]) -> Generator[Future[Read], None, None]:
    """What is read of each item, in their order; the next one is read while the caller has one.

    An error of an item comes with that item's result, never with another's. Close it, so that after an interruption
    nothing more is read.
    """
    pool = ThreadPoolExecutor(1, "medmtl-read")
    try:
        coming = pool.submit(read, items[0]) if items else None
        for item in [*items[1:], None]:
            current, coming = coming, None if item is None else pool.submit(read, item)
            if current is not None:
                yield current
            del current  # whoever wanted what was read has it
    finally:
        pool.shutdown(cancel_futures=True)


class WriteBehind:
    """Writes one thing while the caller makes the next; for one ``with`` block.

    At the end of the block all that was put is written, also where an error or an interruption ends it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "medmtl-write")
        self._pending: Future[None] | None = None

    def __enter__(self) -> WriteBehind:
        return self

    def put(self, write: Callable[[], None]) -> None:
        """Start a write once the one before it is done.

        Raises:
            Exception: what that one raised; the new one is then not started.
        """
        self._wait()
        self._pending = self._pool.submit(write)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # what ended the block is the first to be told; what was not written has no row
            with suppress(*(() if error is None else (Exception,))):
                self._wait()
        finally:
            self._pool.shutdown()
