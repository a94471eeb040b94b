"""Requests from outside while a run trains."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Requests:
    """Notes signals instead of dying of them.

    SIGTERM, SIGINT and SIGHUP ask for a commit and an end after the current step; a second one of them leaves at once
    (the last commit stands). SIGUSR1 asks for a commit now. Outside the main thread, where Python cannot set handlers,
    nothing is caught.
    """

    def __init__(self) -> None:
        self.stop: str | None = None
        self.commit = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Requests:
        try:
            for number in STOPPING:
                self._previous[number] = signal.signal(number, self._on_stop)
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_commit)
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
            os._exit(5)
        self.stop = signal.Signals(number).name

    def _on_commit(self, number: int, frame: FrameType | None) -> None:
        self.commit = True
