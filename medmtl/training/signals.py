"""Requests from outside while a run trains."""

from __future__ import annotations

import multiprocessing
import os
import signal
from types import FrameType, TracebackType

# by name: not every platform has them all
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
COMMITTING = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))


class Requests:
    """Notes signals instead of dying of them.

    SIGTERM, SIGINT and SIGHUP ask for a commit and an end after the current step; a second one of them leaves at once
    (the last commit stands). SIGUSR1 asks for a commit now. A signal that whoever started this process had it ignore
    (``nohup``) stays ignored. Outside the main thread, where Python cannot set handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.stop: str | None = None
        self.commit = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Requests:
        try:
            for numbers, handler in ((STOPPING, self._on_stop), (COMMITTING, self._on_commit)):
                for number in numbers:
                    if signal.getsignal(number) is not signal.SIG_IGN:
                        self._previous[number] = signal.signal(number, handler)
        except ValueError:
            self._previous.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop is not None:
            # asked twice: the commit on disk is whole, and whoever asks twice does not want to wait
            for process in multiprocessing.active_children():
                process.kill()
            os._exit(5)
        self.stop = signal.Signals(number).name

    def _on_commit(self, number: int, frame: FrameType | None) -> None:
        self.commit = True
