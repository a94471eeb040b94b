"""What two cells of a row say: how long a patient was followed, and whether the event came."""

from __future__ import annotations

from typing import NamedTuple

from medmtl.data.cell import is_localised_number, is_missing_word, number
from medmtl.tasks.base import CellError

MISSING_FIX = "list it in cohort.missing if it means that the case is not labelled, or correct it"


class Outcome(NamedTuple):
    """A survival target.

    Attributes:
        time: of the event, or of the end of follow-up; above 0.
        event: whether it is the event.
    """

    time: float
    event: bool


def read_outcome(
    time_cell: str | None, event_cell: str | None, time_column: str, event_column: str, max_time: float | None
) -> Outcome | None:
    """The target, or None where both cells are empty.

    Raises:
        CellError: B127 if one cell alone is empty, B116 for a word that means "missing"; of the time B006 for a decimal
            comma or thousands apart, B123 for anything but a number above 0, and B128 above ``max_time``; of the event
            B124 for anything but 0 and 1.
    """
    if time_cell is None and event_cell is None:
        return None
    if time_cell is None or event_cell is None:
        column, other = (time_column, event_column) if time_cell is None else (event_column, time_column)
        expected, fix = f"a value, as in {other}", "fill it, or empty both cells"
        raise CellError("B127", column=column, found="", expected=expected, fix=fix)
    return Outcome(_time(time_cell, time_column, max_time), _event(event_cell, event_column))


def _time(cell: str, column: str, max_time: float | None) -> float:
    value = number(cell)
    code = "B123"
    expected, fix = "a number above 0, such as 412", "write the time from the start of follow-up, not a date"
    if value is None:
        if is_localised_number(cell.strip()):
            code, fix = "B006", "write a decimal point, and nothing between thousands"
        elif is_missing_word(cell):
            code, fix = "B116", MISSING_FIX
        raise CellError(code, column=column, found=cell, expected=expected, fix=fix)
    if value <= 0:
        fix = "follow-up starts at 0, before any event; correct the cell, or empty both"
        raise CellError(code, column=column, found=cell, expected=expected, fix=fix)
    if max_time is not None and value > max_time:
        expected, fix = f"at most max_time, {max_time:g}", "correct the cell (is its unit another one?) or max_time"
        raise CellError("B128", column=column, found=cell, expected=expected, fix=fix)
    return value


def _event(cell: str, column: str) -> bool:
    value = number(cell)
    if value in (0.0, 1.0):
        return value == 1.0
    expected, fix = "1 for the event, 0 for the end of follow-up without it", "write 0 or 1"
    if is_missing_word(cell):
        raise CellError("B116", column=column, found=cell, expected=expected, fix=MISSING_FIX)
    if value == 2.0:
        fix = "write 0 or 1; where 1 is the end of follow-up and 2 the event, write 0 for every 1 and 1 for every 2"
    raise CellError("B124", column=column, found=cell, expected=expected, fix=fix)
