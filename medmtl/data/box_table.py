"""Boxes of lesions as rows of a table, in millimetres.

A table holds the boxes of one case, or of many, told apart by the column ``case_id``. A row is a box by two corners, a
box by its centre and sizes, or a ball by its centre and diameter; the header tells which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from medmtl.data.case import Case
from medmtl.data.cell import is_localised_number, number
from medmtl.data.finding import Fault, Finding, Findings
from medmtl.data.table import Table, read_table
from medmtl.data.volume import Grid
from medmtl.disk import why
from medmtl.errors import CohortError, InputError, WorkError
from medmtl.files import json_bytes, sha256_bytes, sha256_file
from medmtl.spelling import did_you_mean

Frame = Literal["ras", "lps"]
"""Where x and y grow: to the patient's right and front, or to the left and back. z grows to the head."""

CASE = "case_id"
CORNERS = tuple(f"{axis}_{end}_mm" for end in ("min", "max") for axis in "xyz")
CENTRE = tuple(f"{axis}_mm" for axis in "xyz")
SIZES = (*CENTRE, *(f"{axis}_size_mm" for axis in "xyz"))
BALL = (*CENTRE, "diameter_mm")
FORMS = (CORNERS, SIZES, BALL)
FARTHEST_MM = 100_000  # from the frame's origin; no scanner is that large
KEPT = 8  # tables that are not parsed again for every case
NUMBER = f"a number in mm, of {FARTHEST_MM} at most"

_TO_RAS = {"ras": (1.0, 1.0, 1.0), "lps": (-1.0, -1.0, 1.0)}


class BoxFault(Fault):
    """A row of a table of boxes was refused.

    Args:
        code: id of the rule.
        line: of the table.
        column, found, expected, fix: as in :class:`medmtl.data.finding.Finding`.
    """

    def __init__(self, code: str, *, line: int, column: str, found: str, expected: str, fix: str) -> None:
        message = f"[{code}] row {line}, column {column}: found {found!r}; expected {expected}; {fix}"
        super().__init__(message, code, found=found, expected=expected, fix=fix, column=column)
        self.line = line


@dataclass(frozen=True)
class Extents:
    """Boxes or balls in the patient.

    Attributes:
        centre_N3: in mm, RAS+.
        half_N3: half of the sizes in mm along these axes.
        ball: whether they are balls, which have these sizes along any axes.
    """

    centre_N3: npt.NDArray[np.float64]
    half_N3: npt.NDArray[np.float64]
    ball: bool

    def in_voxels(self, grid: Grid) -> npt.NDArray[np.float64]:
        """The smallest boxes (n, 6) along a grid's axes that hold them, as in :mod:`medmtl.data.boxes`.

        They may leave the grid.
        """
        inverse = np.linalg.inv(grid.affine)
        turn = inverse[:3, :3]
        # voxel i has its middle at i for an affine, and at i + 0.5 here
        centre = self.centre_N3 @ turn.T + inverse[:3, 3] + 0.5
        half = np.sqrt(self.half_N3**2 @ (turn**2).T) if self.ball else self.half_N3 @ np.abs(turn).T
        return np.concatenate([centre - half, centre + half], axis=1)

    def once(self) -> Extents:
        """Without the later ones of equals."""
        rows = np.concatenate([self.centre_N3, self.half_N3], axis=1)
        _, first = np.unique(rows, axis=0, return_index=True)
        first.sort()
        return Extents(self.centre_N3[first], self.half_N3[first], self.ball)

    def digest(self) -> str:
        """Equal for equal extents only."""
        return sha256_bytes(json_bytes([self.centre_N3.tolist(), self.half_N3.tolist(), self.ball]))


@dataclass(frozen=True)
class BoxRow:
    """A row: its line in the file, and its cells of the form's columns."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class BoxTable:
    """A table whose form is sound; its numbers are not yet looked at.

    Attributes:
        sha256: hash of the file's bytes.
        form: its columns, one of ``FORMS``.
        names_cases: whether it has a column of case ids; otherwise all of its rows are one case's.
        rows: case id, or "" where it names none -> rows.
    """

    sha256: str
    form: tuple[str, ...]
    names_cases: bool
    rows: Mapping[str, tuple[BoxRow, ...]]

    def of(self, case: Case) -> tuple[BoxRow, ...]:
        """The rows of a case that names this table; none for a case without lesions."""
        return self.rows.get(case.own_id if self.names_cases else "", ())

    def values(self, row: BoxRow) -> list[float]:
        """Centre and sizes of a row, as written: six numbers.

        Raises:
            BoxFault: B006 or B119, if a cell is no number or the box has no extent.
        """
        found = [_number(cell, row.line, column) for cell, column in zip(row.cells, self.form, strict=True)]
        if self.form == CORNERS:
            for start, end, column in zip(found[:3], found[3:], CORNERS[3:], strict=True):
                if end <= start:
                    _refuse_extent(
                        row.line, column, f"{start:g} to {end:g}", "a box from its lower to its upper corner"
                    )
            low, high = np.array(found[:3]), np.array(found[3:])
            return [*(low + (high - low) / 2).tolist(), *(high - low).tolist()]
        sizes = found[3:]
        for size, column in zip(sizes, self.form[3:], strict=True):
            if size <= 0:
                _refuse_extent(row.line, column, f"{size:g}", "a size above 0")
        return [*found[:3], *(sizes if len(sizes) == 3 else sizes * 3)]

    def extents(self, rows: Sequence[BoxRow], frame: Frame) -> Extents:
        """What rows say, one for each.

        Raises:
            BoxFault: as :meth:`values`, for the first bad row.
        """
        values = np.array([self.values(row) for row in rows], np.float64).reshape(-1, 6)
        return Extents(values[:, :3] * _TO_RAS[frame], values[:, 3:] / 2, self.form == BALL)


def read_box_table(path: Path, findings: Findings) -> BoxTable | None:
    """Read a table of boxes, or None where it cannot be read as one.

    Args:
        path: CSV, or TSV where the name ends in ``.tsv``.
        findings: gets every fault of its form; rows are its lines.

    Raises:
        OSError: if the file cannot be read.
        WorkError: if it changes while it is read.
    """
    table, found = _read(path, sha256_file(path))
    findings.extend(list(found))
    return table


def boxes_of(case: Case, column: str, frame: Frame) -> tuple[Extents, str]:
    """The boxes of a case, each once, and the hash of the table that they stand in.

    Raises:
        InputError: if the table is not the one that was checked, or a row of the case's is refused.
        WorkError: if it cannot be read, or changes while it is read.
    """
    path = case.files[column]
    findings = Findings()
    try:
        digest = sha256_file(path)
        case.refuse_change(path, digest)
        table = read_box_table(path, findings)
    except OSError as error:
        raise case.failed(WorkError(f"{path.name} could not be read: {why(error)}")) from error
    try:
        if table is not None:
            return table.extents(table.of(case), frame).once(), digest
        fault = findings.rejected()[0].sentence()
    except BoxFault as error:
        fault = str(error)
    raise InputError(f"case {case.case_id!r}: {path.name} is no table of boxes: {fault}")


@lru_cache(KEPT)
def _read(path: Path, sha256: str) -> tuple[BoxTable | None, tuple[Finding, ...]]:
    """One of these bytes: a cohort's table is asked for case by case."""
    findings = Findings()
    try:
        table = read_table(path, (CASE, *CORNERS, *SIZES, *BALL), findings, may_be_empty=True)
    except CohortError:
        return None, tuple(findings)
    if table.sha256 != sha256:
        raise WorkError(f"{path.name} changed while it was read; start again")
    form = _form(table.names, findings)
    rows = _rows(table, form, findings) if form is not None else {}
    if form is None or findings.rejected():
        return None, tuple(findings)
    return BoxTable(sha256, form, CASE in table.names, rows), tuple(findings)


def _form(names: Sequence[str], findings: Findings) -> tuple[str, ...] | None:
    """The one form whose columns the header has, each once."""
    whole = [form for form in FORMS if set(form) <= set(names)]
    if not whole:
        near = min(FORMS, key=lambda form: len(set(form) - set(names)))
        absent = next(column for column in near if column not in names)
        others = [name for name in names if name not in near]
        fix = did_you_mean(absent, others) or "name the columns as docs/detection.md says"
        findings.reject("B013", row=1, column=absent, found="no such column", expected=" ".join(near), fix=fix)
        return None
    if len(whole) > 1:
        found, fix = "two ways to state a box", f"remove {' '.join(sorted(set(whole[1]) - set(whole[0])))}"
        findings.reject("B012", row=1, found=found, expected="the columns of one", fix=fix)
        return None
    for column in (CASE, *whole[0]):
        if names.count(column) > 1:
            findings.reject("B012", row=1, column=column, found="two columns of one name", fix="rename one of them")
            return None
    return whole[0]


def _rows(table: Table, form: Sequence[str], findings: Findings) -> dict[str, tuple[BoxRow, ...]]:
    found: dict[str, list[BoxRow]] = {}
    places = [table.names.index(column) for column in form]
    named = table.names.index(CASE) if CASE in table.names else None
    for line, cells in table.rows():
        case = "" if named is None else cells[named]
        if named is not None and not case.strip():
            fix = "give the row its case's id, or remove the row"
            findings.reject("B016", row=line, column=CASE, found="empty", expected="an id", fix=fix)
        found.setdefault(case, []).append(BoxRow(line, tuple(cells[place] for place in places)))
    return {case: tuple(rows) for case, rows in found.items()}


def _number(cell: str, line: int, column: str) -> float:
    value = number(cell.strip())
    if value is None or abs(value) > FARTHEST_MM:
        code, fix = "B119", "correct the cell, or remove the row"
        if is_localised_number(cell):
            code, fix = "B006", "write decimals with a point, and thousands without a mark"
        raise BoxFault(code, line=line, column=column, found=cell or "empty", expected=NUMBER, fix=fix)
    return value


def _refuse_extent(line: int, column: str, found: str, expected: str) -> None:
    raise BoxFault("B119", line=line, column=column, found=found, expected=expected, fix="correct or remove the row")
