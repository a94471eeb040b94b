"""What ``check`` reports: one record per fault, collected in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["reject", "warn", "fixed"]

FOUND_LIMIT = 40


def shown(value: object) -> str:
    """A value as a finding may show it: escaped, at most 40 characters."""
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
                f"found {self.found}" if self.found is not None else "",
                f"expected {self.expected}" if self.expected else "",
                self.fix or "",
            )
            if part
        )
        return f"[{self.code}] {where}: {body}" if where else f"[{self.code}] {body}"


class Findings:
    """A growing list of findings; the three verbs add one each."""

    def __init__(self) -> None:
        self._items: list[Finding] = []

    def reject(self, code: str, **fields: Any) -> None:
        """Add a fault that stops training."""
        self._add(code, "reject", fields)

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
