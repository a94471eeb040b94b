"""One row of the cohort table, validated in form but with its files not yet opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medmtl.errors import InputError, WorkError


@dataclass(frozen=True)
class Case:
    """A case as the table states it.

    Attributes:
        case_id: text, exactly as in the table (``007`` stays ``007``).
        patient: id of the person; the unit of every split and every interval.
        site: scanner, hospital or other stratum, or None where the cohort declares none.
        row: 1-based line of the table.
        images: channel name -> file, in the declared order; without the optional channels that the case lacks. The
            first one's grid is the case's.
        cells: declared column of a task or a covariate -> cell text; None where the cell means "not labelled", or that
            the value is missing.
        files: task column -> resolved file, for the columns that name label files or tables of boxes and are not empty.
        split: value of the split column, where one is declared.
        cohort: name of its cohort, where several are joined; both ids begin with it.
        sha256: file -> hash that its bytes had when the cohort was checked; empty where nobody checked it before.
    """

    case_id: str
    patient: str
    site: str | None
    row: int
    images: Mapping[str, Path]
    cells: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    split: str | None = None
    sha256: Mapping[Path, str] = field(default_factory=dict)
    cohort: str | None = None

    @property
    def person(self) -> str:
        """The patient's id as the table has it."""
        return self.patient if self.cohort is None else self.patient.removeprefix(f"{self.cohort}/")

    @property
    def own_id(self) -> str:
        """The case's id as the table has it."""
        return self.case_id if self.cohort is None else self.case_id.removeprefix(f"{self.cohort}/")

    @property
    def line(self) -> str:
        """Its row, as a message about another case names it."""
        return f"row {self.row}" if self.cohort is None else f"row {self.row} of {self.cohort}"

    def refuse_change(self, path: Path, sha256: str | None) -> None:
        """Compare what was read from one of the case's files with what was checked.

        Raises:
            InputError: the file is another one now.
        """
        if path in self.sha256 and self.sha256[path] != sha256:
            raise InputError(
                f"case {self.case_id!r} (row {self.row}): {path.name} is not the file that was checked (its sha256 "
                "differs); put the old file back, or train a new run",
                code="B093",
            )

    def failed(self, error: WorkError) -> WorkError:
        """What is told of a file of the case that the system does not read."""
        row = f" ({self.line})" if self.row else ""  # of a case that is given as files there is no table
        return WorkError(f"case {self.case_id!r}{row}: {error}")


def named(case_ids: Sequence[str], rows: Sequence[int]) -> str:
    """Cases with their rows, as a message names them: ``cases 'a' (row 2), 'b' (row 7)``."""
    listed = ", ".join(f"{case_id!r} (row {row})" for case_id, row in zip(case_ids, rows, strict=True))
    return f"case{'s' if len(case_ids) > 1 else ''} {listed}"
