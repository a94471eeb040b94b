"""The newest log risk of each case seen within an epoch, so that two patients in a batch meet all others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """What a step said of a case.

    Attributes:
        case_id: the case.
        log_risk: of the weights of that step; a number, through which no gradient flows.
        time, event: its outcome.
        step: the step.
    """

    case_id: str
    log_risk: float
    time: float
    event: bool
    step: int


class RiskBank:
    """One entry per case, in the order in which they were made."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def others(self, case_ids: Collection[str], step: int, epoch: int) -> list[Entry]:
        """Entries of other cases than these that are at most ``epoch`` steps old at a step."""
        return [e for e in self._entries.values() if e.case_id not in case_ids and step - e.step <= epoch]

    def add(self, entries: Iterable[Entry], step: int, epoch: int) -> None:
        """Take in the entries of a step in place of older ones, and drop what is more than ``epoch`` steps old."""
        new = {entry.case_id: entry for entry in entries}
        self._entries = {entry.case_id: entry for entry in self.others(new, step, epoch)} | new

    def __len__(self) -> int:
        return len(self._entries)

    def to_json(self) -> list[list[Any]]:
        """As stored in a checkpoint."""
        return [list(entry) for entry in self._entries.values()]

    @classmethod
    def from_json(cls, stored: Any) -> RiskBank:
        """What :meth:`to_json` gave.

        Raises:
            TypeError, ValueError: if it is something else.
        """
        bank = cls()
        for row in stored:
            entry = Entry(*row)
            if [type(value) for value in entry] != [str, float, float, bool, int] or entry.case_id in bank._entries:
                raise ValueError(f"not an entry of a bank of risks: {row!r}")
            bank._entries[entry.case_id] = entry
        return bank
