"""The cohort table: text in, validated cases out, every fault of every row in one pass.

Cells stay text, exactly as written. Files are found and kept inside the table's folder, but not opened. The codes are those
of the catalogue in ``docs/reliability.md``.
"""

from __future__ import annotations

import codecs
import csv
import errno
import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl.data.case import Case
from medmtl.data.finding import Findings, shown
from medmtl.errors import CohortError, WorkError
from medmtl.registry import nearest

_OTHER_ENCODINGS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Row = tuple[int, list[str]]


@dataclass(frozen=True)
class CohortLayout:
    """Which columns of which table mean what.

    Attributes:
        table: CSV, or TSV where the name ends in ``.tsv``.
        case, patient: columns of the ids; the same one where each case is declared to be a person.
        site: column of the scanner or hospital, where there is one.
        channels: channel name -> column of its image files, in input order.
        value_columns: columns whose cells are targets.
        file_columns: columns that name label files.
        split: column of the split, where there is one.
        missing: cells that mean "not labelled", besides the empty one.
        roots: folders outside the table's own that may be read.
        allow_shared_image: whether two rows may name one image.
    """

    table: Path
    case: str
    patient: str
    channels: Mapping[str, str]
    site: str | None = None
    value_columns: tuple[str, ...] = ()
    file_columns: tuple[str, ...] = ()
    split: str | None = None
    missing: tuple[str, ...] = ("",)
    roots: tuple[Path, ...] = ()
    allow_shared_image: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every declared column once."""
        declared = (self.case, self.patient, self.site, *self.channels.values(), *self.value_columns)
        return tuple(dict.fromkeys(name for name in (*declared, *self.file_columns, self.split) if name is not None))


@dataclass(frozen=True)
class Cohort:
    """The readable rows of a table.

    Attributes:
        table: the file.
        cases: rows whose ids and images were not refused, in the table's order.
        sha256: hash of the table's bytes.
        columns: the header, as written.
    """

    table: Path
    cases: tuple[Case, ...]
    sha256: str
    columns: tuple[str, ...]


def read_cohort(layout: CohortLayout, findings: Findings) -> Cohort:
    """Read every row of the table and find every file it names.

    Args:
        layout: what the columns mean.
        findings: gets every fault. A row with a refused id or image is left out of the cohort; a refused label file is
            left out of its case.

    Raises:
        CohortError: if the table cannot be read as one, or lacks a declared column; carries all findings.
        WorkError: if the file system fails.
    """
    table = layout.table
    content = _content(table, findings)
    rows = _rows(table, _text(table, content, findings), findings)
    names, body = rows[0][1], rows[1:]
    sound = _check_header(names, layout, findings)
    body = _even_rows(table, len(names), body, findings)
    reader = _RowReader(layout, names, findings)
    cases = tuple(case for row, cells in body if (case := reader.case(row, cells)) is not None)
    if not sound:
        message = f"the header of {table.name} lacks a declared column or has one twice; correct the names"
        raise CohortError(message, tuple(findings))
    return Cohort(table, cases, hashlib.sha256(content).hexdigest(), tuple(names))


def _unreadable(table: Path, findings: Findings, code: str, **fields: Any) -> CohortError:
    findings.reject(code, file=table.name, **fields)
    return CohortError(f"the table cannot be read: {findings.rejected()[-1].sentence()}", tuple(findings))


def _content(table: Path, findings: Findings) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(table).st_mode):
            raise _unreadable(table, findings, "B001", found="no regular file", expected="a CSV or TSV file")
        return table.read_bytes()
    except OSError as error:
        found = f"{error.strerror} (errno {error.errno})"
        raise _unreadable(table, findings, "B001", found=found, expected="a CSV or TSV file") from None


def _text(table: Path, content: bytes, findings: Findings) -> str:
    fix = "save the table as UTF-8"
    if content.startswith(_OTHER_ENCODINGS):
        raise _unreadable(table, findings, "B004", found="UTF-16 or UTF-32", expected="UTF-8", fix=fix)
    if content.startswith(codecs.BOM_UTF8):
        findings.fixed("B003", file=table.name, found="a byte-order mark", fix="ignored")
        content = content[len(codecs.BOM_UTF8) :]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise _unreadable(table, findings, "B004", row=row, found=found, expected="UTF-8", fix=fix) from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise _unreadable(table, findings, "B010", row=row, found="a NUL character", expected="text", fix=fix)
    return text


def _rows(table: Path, text: str, findings: Findings) -> list[Row]:
    """Header and data rows, each with the line on which it starts; blank ones are left out."""
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    line, blank = 1, 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            else:
                blank += 1
            line = reader.line_num + 1
    except csv.Error as error:
        fix = "close the quotation mark, or double one that belongs to the text"
        raise _unreadable(table, findings, "B009", row=line, found=error, expected="paired quotes", fix=fix) from None
    if len(rows) < 2:
        expected, fix = "a header and at least one row", "write one row per case"
        raise _unreadable(table, findings, "B002", found="0 cases", expected=expected, fix=fix)
    if blank:
        findings.fixed("B011", file=table.name, found=f"{blank} blank rows", fix="ignored")
    return rows


def _check_header(names: list[str], layout: CohortLayout, findings: Findings) -> bool:
    """Whether every declared column is there once. Names of undeclared columns are not shown: they may identify."""
    sound = True
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        first = seen.setdefault(_folded(name), number)
        if first != number:
            sound = False
            column = name if name in layout.columns else None
            found, expected = f"columns {first} and {number} have one name", "names that differ in more than case"
            findings.reject("B012", row=1, column=column, found=found, expected=expected, fix="rename one of them")
    for column in layout.columns:
        if column not in names:
            sound = False
            guess = nearest(column, names)
            fix = f"did you mean {shown(guess)!r}?" if guess else "correct the configuration or the header"
            findings.reject("B013", row=1, column=column, found="no such column", expected="exactly this name", fix=fix)
    extra = len(set(names) - set(layout.columns))
    if extra:
        findings.warn("B014", row=1, found=f"{extra} columns that nothing uses", fix="they are ignored")
    if layout.patient == layout.case:
        fix = "name a patient column if one person can have several cases"
        findings.warn("B022", column=layout.case, found="each case declared to be a person", fix=fix)
    return sound


def _even_rows(table: Path, width: int, rows: list[Row], findings: Findings) -> list[Row]:
    """The rows that are as wide as the header; in any other row a cell may stand under the wrong name."""
    widths = {len(cells) for _, cells in rows}
    expected = f"{width} fields, as in the header"
    if len(widths) == 1 and width not in widths:
        found, fix = f"{widths.pop()} fields in every row", "correct the header"
        raise _unreadable(table, findings, "B007", found=found, expected=expected, fix=fix)
    for row, cells in rows:
        if len(cells) != width:
            fix = "quote cells that hold the delimiter"
            findings.reject("B008", row=row, found=f"{len(cells)} fields", expected=expected, fix=fix)
    return [(row, cells) for row, cells in rows if len(cells) == width]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


class _RowReader:
    """Turns one row after the other into a case, remembering what must not come twice."""

    def __init__(self, layout: CohortLayout, names: list[str], findings: Findings) -> None:
        self._layout = layout
        self._index = {name: position for position, name in reversed(list(enumerate(names)))}
        self._findings = findings
        self._missing = frozenset((*layout.missing, ""))
        self._files = _Files(layout.table.parent, layout.roots)
        self._ids: dict[str, int] = {}
        self._images: dict[str, int] = {}

    def case(self, row: int, cells: list[str]) -> Case | None:
        """The case of a row, or None where an id or an image was refused."""
        layout = self._layout
        text = {column: cells[self._index[column]] for column in layout.columns if column in self._index}
        case_id = text.get(layout.case, "")
        where: dict[str, Any] = {"case": case_id or None, "row": row}
        sound = self._check_ids(text, where)
        images = {name: self._image(text.get(column), column, where) for name, column in layout.channels.items()}
        values = {
            column: None if text[column] in self._missing else text[column]
            for column in (*layout.value_columns, *layout.file_columns, layout.site, layout.split)
            if column in text
        }
        files = {column: self._file(values.get(column), column, where) for column in layout.file_columns}
        found = {name: image for name, image in images.items() if image is not None}
        if not sound or len(found) < len(images):
            return None
        return Case(
            case_id=case_id,
            patient=text[layout.patient],
            site=values[layout.site] if layout.site else None,
            row=row,
            images=found,
            cells={column: values[column] for column in (*layout.value_columns, *layout.file_columns)},
            files={column: file[0] for column, file in files.items() if file is not None},
            split=values[layout.split] if layout.split else None,
        )
