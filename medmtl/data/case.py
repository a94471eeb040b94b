"""One row of the cohort table, validated in form but with its files not yet opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A case as the table states it.

    Attributes:
        case_id: text, exactly as in the table (``007`` stays ``007``).
        patient: id of the person; the unit of every split and every interval.
        site: scanner, hospital or other stratum, or None where the cohort declares none.
        row: 1-based line of the table.
        images: channel name -> file, in the declared order.
        cells: declared task column -> cell text; None where the cell means "not labelled".
        files: task column -> resolved file, for the columns that name label files and are not empty.
        split: value of the split column, where one is declared.
    """

    case_id: str
    patient: str
    site: str | None
    row: int
    images: Mapping[str, Path]
    cells: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    split: str | None = None


def named(case_ids: Sequence[str], rows: Sequence[int]) -> str:
    """Cases with their rows, as a message names them: ``cases 'a' (row 2), 'b' (row 7)``."""
    listed = ", ".join(f"{case_id!r} (row {row})" for case_id, row in zip(case_ids, rows, strict=True))
    return f"case{'s' if len(case_ids) > 1 else ''} {listed}"
