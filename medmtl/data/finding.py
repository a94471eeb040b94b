"""What ``check`` reports: one record per fault, collected in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["reject", "warn", "fixed"]

FOUND_LIMIT = 40


def shown(value: object) -> str:
    """A value as a finding may show it: escaped, at most 40 characters; what medmtl itself says should fit in."""
    text = str(value).encode("unicode_escape", "backslashreplace").decode("ascii")
    return text if len(text) <= FOUND_LIMIT else text[: FOUND_LIMIT - 3] + "..."


@dataclass(frozen=True)
class Finding:
    """One fault of the configuration, the table, a file or the cohort as a whole.

    Attributes:
        code: id of the rule, such as ``B094`` of the catalogue in ``docs/reliability.md``.
        severity: ``reject`` stops training, ``warn`` is reported, ``fixed`` was repaired and is counted.
        case, row, column: the table's case id, 1-based line number and column, where the fault has one. Of a row in a
            table of boxes it is the line there.
        key, line: the configuration key and its line, where the fault has one.
        file: the path as written in the table.
        found, expected, fix: what was there, what the rule wants, and what to do.
    """

    code: str
    severity: Severity
    case: str | None = None
    row: int | None = None
    column: str | None = None
    key: str | None = None
    line: int | None = None
    file: str | None = None
    found: str | None = None
    expected: str | None = None
    fix: str | None = None

    @property
    def counts_missing(self) -> bool:
        """Whether it only says of how many cases a task has no label, which is no fault."""
        of_a_task = self.row is None and self.column is None and (self.key or "").startswith("tasks.")
        return of_a_task and self.severity == "warn" and self.code in ("B094", "B116")

    def to_json(self) -> dict[str, Any]:
        """As written to ``findings.json``."""
        return asdict(self)

    def sentence(self) -> str:
        """One line for the console."""
        where = ", ".join(
            part
            for part in (
                f"row {self.row}" if self.row is not None else "",
                f"case {shown(self.case)}" if self.case is not None else "",
                f"column {self.column}" if self.column else "",
                f"key {self.key}" if self.key else "",
                f"line {self.line}" if self.line is not None else "",
                f"file {shown(self.file)}" if self.file else "",
            )
            if part
        )
        body = "; ".join(
            part
            for part in (
                "" if self.found is None else f"found {_marked(self.found)}",
                f"expected {self.expected}" if self.expected else "",
                self.fix or "",
            )
            if part
        )
        return f"[{self.code}] {where}: {body}" if where else f"[{self.code}] {body}"


def _marked(found: str) -> str:
    """In quotation marks where it is empty or has blanks at its ends, which nobody would see otherwise."""
    return found if found and found == found.strip() else f"'{found}'"


class Fault(Exception):
    """A reader's refusal of a cell, a row or a file: what a finding says but for the place, which its caller knows.

    Args:
        message: for whoever does not make it a finding.
        code, found, expected, fix, column: as in :class:`Finding`.
    """

    def __init__(
        self, message: str, code: str, *, found: str, expected: str, fix: str, column: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.found, self.expected, self.fix, self.column = code, found, expected, fix, column


class Findings:
    """A growing list of findings; the three verbs add one each."""

    def __init__(self) -> None:
        self._items: list[Finding] = []

    def reject(self, code: str, **fields: Any) -> None:
        """Add a fault that stops training."""
        self._add(code, "reject", fields)

    def reject_fault(self, fault: Fault, **where: Any) -> None:
        """Add a reader's refusal; ``where`` holds what the reader does not know, such as the case."""
        own = {} if fault.column is None else {"column": fault.column}
        self.reject(fault.code, **{**where, **own}, found=fault.found, expected=fault.expected, fix=fault.fix)

    def warn(self, code: str, **fields: Any) -> None:
        """Add something the report must show."""
        self._add(code, "warn", fields)

    def fixed(self, code: str, **fields: Any) -> None:
        """Add something that was repaired."""
        self._add(code, "fixed", fields)

    def _add(self, code: str, severity: Severity, fields: dict[str, Any]) -> None:
        if fields.get("found") is not None:
            fields["found"] = shown(fields["found"])
        self._items.append(Finding(code=code, severity=severity, **fields))

    def extend(self, findings: Iterator[Finding] | list[Finding]) -> None:
        """Add findings made elsewhere."""
        self._items.extend(findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def rejected(self) -> list[Finding]:
        """Those that stop training."""
        return [finding for finding in self._items if finding.severity == "reject"]
