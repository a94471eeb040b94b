"""How long work tells where it is. The library calls it; only the command line shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called at every unit of work."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report that ``done`` of ``total`` units of ``stage`` are finished."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""
