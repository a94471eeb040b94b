"""A table file as rows of text: its bytes, its encoding, its delimiter and its shape.

Nothing is guessed: a file that could be read in two ways is refused, with what it looks like. The codes are those of
the catalogue in ``docs/reliability.md``.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl.data.finding import Findings
from medmtl.errors import CohortError

MAX_TABLE_BYTES = 1 << 28  # a quarter of a GiB: a million rows
MAX_HEADER = 1 << 16  # characters looked at to tell the delimiter
TAB = "\t"
TABLES = (".csv", ".tsv")  # endings of tables

_OTHER_ENCODINGS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, such as .xlsx or .ods",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"\x1f\x8b": "a gzip stream",
    b"BZh": "a bzip2 stream",
    b"\xfd7zXZ": "an xz stream",
    b"(\xb5/\xfd": "a Zstandard stream",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF file",
    b"SQLite format 3": "a database",
    b"{\\rtf": "an RTF text",
}
_DELIMITERS = {",": "a comma", ";": "a semicolon", TAB: "a tab", "|": "a vertical bar"}
_LINE_ENDS = {"\r\n": "CRLF", "\n": "LF", "\r": "CR"}
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


@dataclass(frozen=True)
class Table:
    """A table whose form is sound.

    Attributes:
        path: the file.
        names: the header, as written.
        sha256: hash of the file's bytes.
        left_out: how many rows are not as wide as the header.
    """

    path: Path
    names: tuple[str, ...]
    sha256: str
    left_out: int
    _text: str
    _delimiter: str

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Data rows that are as wide as the header, each with the line on which it starts; blank ones are left out."""
        records = _Records(self._text, self._delimiter)
        next(records)
        return ((row, cells) for row, cells in records if len(cells) == len(self.names))


def read_table(path: Path, columns: Sequence[str], findings: Findings, *, may_be_empty: bool = False) -> Table:
    """Read a CSV file, or a TSV file where the name ends in ``.tsv``, and check its form.

    Args:
        path: the file.
        columns: names that its header should hold; they tell which delimiter it was written with.
        findings: gets every fault; a row of another width than the header's is left out.
        may_be_empty: whether a header without a row is a table.

    Raises:
        CohortError: if it cannot be read as a table; carries all findings.
    """
    content = _content(path, findings)
    text = _text(path, content, findings)
    delimiter = TAB if path.suffix.lower() == ".tsv" else ","
    _check_delimiter(path, text, delimiter, columns, findings)
    names, odd = _check_rows(path, text, delimiter, findings, may_be_empty)
    return Table(path, tuple(names), hashlib.sha256(content).hexdigest(), odd, text, delimiter)


def _unreadable(path: Path, findings: Findings, code: str, **fields: Any) -> CohortError:
    """The error of a table that cannot be read, after its last finding was added."""
    findings.reject(code, file=path.name, **fields)
    return CohortError(f"the table {path} cannot be read: {findings.rejected()[-1].sentence()}", tuple(findings))


def _content(path: Path, findings: Findings) -> bytes:
    expected, fix = "a CSV or TSV file", "correct the path of the table, or make the file readable"
    if "~" in path.parts:
        fix = "write the whole path: ~ stands for no folder here"
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise _unreadable(path, findings, "B001", found=kind, expected=expected, fix=fix)
        if status.st_size > MAX_TABLE_BYTES:
            found, most = f"{status.st_size} bytes", f"at most {MAX_TABLE_BYTES} bytes"
            raise _unreadable(path, findings, "B029", found=found, expected=most, fix="drop columns that nothing uses")
        with path.open("rb") as file:
            return file.read(status.st_size)
    except OSError as error:
        found = f"{error.strerror} (errno {error.errno})"
        raise _unreadable(path, findings, "B001", found=found, expected=expected, fix=fix) from None


def _text(path: Path, content: bytes, findings: Findings) -> str:
    fix = "save the table as UTF-8"
    foreign = _foreign(path, content)
    if foreign is not None:
        expected, export = "a CSV or TSV file", "export the table as CSV (UTF-8)"
        raise _unreadable(path, findings, "B030", found=foreign, expected=expected, fix=export)
    if content.startswith(_OTHER_ENCODINGS) or b"\0" in content[:4]:
        raise _unreadable(path, findings, "B004", found="UTF-16 or UTF-32", expected="UTF-8", fix=fix)
    if content.startswith(codecs.BOM_UTF8):
        findings.fixed("B003", file=path.name, found="a byte-order mark", fix="ignored")
        content = content[len(codecs.BOM_UTF8) :]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise _unreadable(path, findings, "B004", row=row, found=found, expected="UTF-8", fix=fix) from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise _unreadable(path, findings, "B010", row=row, found="a NUL character", expected="text", fix=fix)
    return text


def _foreign(path: Path, content: bytes) -> str | None:
    """The type of a file that is no table, by its first bytes."""
    start = content[:64]
    known = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), None)
    if known is not None:
        return known
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"<"):
        return "an HTML or XML page"
    return "JSON" if path.suffix.lower() == ".json" and text[:1] in (b"{", b"[") else None


def _check_delimiter(path: Path, text: str, delimiter: str, columns: Sequence[str], findings: Findings) -> None:
    """Refuse a header that holds more of the declared names under another delimiter."""
    first = next((line for line in _lines(text) if line.strip()), "")[:MAX_HEADER]
    held = {sign: len(set(columns) & set(next(csv.reader([first], delimiter=sign), []))) for sign in _DELIMITERS}
    best = max(held, key=lambda sign: (held[sign], sign == delimiter))
    if held[best] > held[delimiter]:
        found = f"{_DELIMITERS[best]} between columns"
        expected = f"{_DELIMITERS[delimiter]}, as in every {'.tsv' if delimiter == TAB else '.csv'} file"
        fix = "save it with commas as .csv, or with tabs as .tsv"
        raise _unreadable(path, findings, "B005", row=1, found=found, expected=expected, fix=fix)


def _check_rows(path: Path, text: str, delimiter: str, findings: Findings, may_be_empty: bool) -> tuple[list[str], int]:
    """Read the table once for its form; returns the header, and how many rows are of another width."""
    records = _Records(text, delimiter)
    names: list[str] = []
    odd: list[tuple[int, int]] = []
    count = 0
    try:
        for row, cells in records:
            if not names:
                names = cells
                continue
            count += 1
            if len(cells) != len(names):
                odd.append((row, len(cells)))
    except csv.Error as error:
        fix = "close the quotation mark, or double one that belongs to the text"
        row = records.opening_line()
        raise _unreadable(path, findings, "B009", row=row, found=error, expected="paired quotes", fix=fix) from None
    if not count and not (names and may_be_empty):
        expected, fix = "a header and at least one row", "write one row per case"
        raise _unreadable(path, findings, "B002", found="0 cases", expected=expected, fix=fix)
    if records.blank:
        findings.fixed("B011", file=path.name, found=f"{records.blank} blank rows", fix="ignored")
    if len(records.ends) > 1 or "\r" in records.ends:
        found = ", ".join(f"{number} {_LINE_ENDS[end]}" for end, number in sorted(records.ends.items()))
        findings.fixed("B011", file=path.name, found=f"line ends: {found}", fix="read alike")
    _check_widths(path, len(names), odd, count, findings)
    return names, len(odd)


def _check_widths(path: Path, width: int, odd: list[tuple[int, int]], count: int, findings: Findings) -> None:
    """In a row of another width than the header's, a cell may stand under the wrong name."""
    expected = f"{width} fields, as in the header"
    if len(odd) == count and len({fields for _, fields in odd}) == 1:
        found, fix = f"{odd[0][1]} fields in every row", "correct the header, and write decimals with a point"
        raise _unreadable(path, findings, "B007", found=found, expected=expected, fix=fix)
    for row, fields in odd:
        fix = "quote cells that hold the delimiter, and write decimals with a point"
        findings.reject("B008", row=row, found=f"{fields} fields", expected=expected, fix=fix)


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, one after the other: a copy of the whole would cost as much as the cases."""
    return (match.group() for match in _LINE.finditer(text))


class _Records:
    """Records of a table's text, each with the line on which it starts; blank ones are counted and left out.

    Attributes:
        blank: how many were left out so far.
        ends: line end -> records that end in it.
    """

    def __init__(self, text: str, delimiter: str) -> None:
        self._text = text
        self._last = ""
        self._line = 1
        self._reader = csv.reader(self._remembered(), delimiter=delimiter, strict=True)
        self.blank = 0
        self.ends: Counter[str] = Counter()

    def _remembered(self) -> Iterator[str]:
        for line in _lines(self._text):
            self._last = line
            yield line

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self._line = self._reader.line_num + 1
            cells = next(self._reader)
            end = next((end for end in _LINE_ENDS if self._last.endswith(end)), None)
            if end is not None:
                self.ends[end] += 1
            if any(cell.strip() for cell in cells):
                return self._line, cells
            self.blank += 1

    def opening_line(self) -> int:
        """Line of the quotation mark that is still open where the record ends too late or wrongly."""
        opened, inside = self._line, False
        for number, line in enumerate(_lines(self._text), start=1):
            if number < self._line:
                continue
            if number > self._reader.line_num:
                break
            for _ in range(line.count('"')):
                inside = not inside
                opened = number if inside else opened
        return opened
