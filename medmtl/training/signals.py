"""Requests from outside while a run trains."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from types import FrameType, TracebackType

import torch

from medmtl.distributed import ALONE, Ranks

# by name: not every platform has them all
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
COMMITTING = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))


class Requests:
    """Notes signals instead of dying of them.

    SIGTERM, SIGINT and SIGHUP ask for a commit and an end after the current step; a second one of them leaves at once
    (the last commit stands). SIGUSR1 asks for a commit now. A signal that whoever started this process had it ignore
    (``nohup``) stays ignored. Outside the main thread, where Python cannot set handlers, nothing is caught.

    Args:
        ranks: processes that must all stop, or commit, after the same step.

    Attributes:
        stop, commit: what is asked for; of several processes, as :meth:`agree` last found it.
        heard: the signal to stop that this process alone has heard of.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.stop: str | None = None
        self.commit = False
        self.heard: str | None = None
        self._commit_heard = False
        self._previous: dict[int, object] = {}
        self._pipe: _Pipe | None = None

    def __enter__(self) -> Requests:
        try:
            for numbers, handler in ((STOPPING, self._on_stop), (COMMITTING, self._on_commit)):
                for number in numbers:
                    if signal.getsignal(number) is not signal.SIG_IGN:
                        self._previous[number] = signal.signal(number, handler)
            self._pipe = _Pipe()
        except ValueError:
            self._previous.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._pipe is not None:
            self._pipe.close()

    def watch(self) -> None:
        """From now on leave at a second request even while the main thread computes and no handler can run.

        It takes a thread: call it once the loader's workers are forked.
        """
        if self._pipe is not None:
            self._pipe.watch()

    def agree(self) -> None:
        """Make what any process has heard the request of all; a single process has no need of it."""
        if self._ranks.size == 1:
            return
        names = [signal.Signals(number).name for number in STOPPING]
        heard = [float(name == self.heard) for name in names]
        asked = self._ranks.sum(torch.tensor([*heard, float(self._commit_heard)])).tolist()
        self.stop = next((name for name, count in zip(names, asked, strict=False) if count), None)
        self.commit, self._commit_heard = bool(asked[-1]), False

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self.heard is not None:
            _leave()
        self.heard = signal.Signals(number).name
        if self._ranks.size == 1:
            self.stop = self.heard

    def _on_commit(self, number: int, frame: FrameType | None) -> None:
        self._commit_heard = True
        if self._ranks.size == 1:
            self.commit = True


class _Pipe:
    """Where the interpreter writes the number of each signal as it comes, long before the main thread may handle it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._watched = False
        _open.add(self)

    def watch(self) -> None:
        if not self._watched:
            self._watched = True
            threading.Thread(target=self._read, name="signals", daemon=True).start()

    def close(self) -> None:
        _open.discard(self)
        signal.set_wakeup_fd(self._previous)
        os.close(self._writer)
        if not self._watched:
            os.close(self._reader)

    def _read(self) -> None:
        stops = 0
        while numbers := os.read(self._reader, 64):
            stops += sum(number in STOPPING for number in numbers)
            if stops > 1:
                _leave()
        os.close(self._reader)


def _leave() -> None:
    """Asked twice: the commit on disk is whole, and whoever asks twice does not want to wait."""
    for process in multiprocessing.active_children():
        process.kill()
    os._exit(5)


def _forget_in_child() -> None:
    # what a forked worker hears is no second request to its parent
    if _open:
        signal.set_wakeup_fd(-1)


_open: set[_Pipe] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
