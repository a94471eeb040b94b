"""The cohort table: text in, validated cases out, every fault of every row in one pass.

Cells stay text, exactly as written. Files are looked up, and kept inside the table's folder, but not opened. The codes
are those of the catalogue in ``docs/reliability.md``.
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

_REFUSED = {
    errno.ENOENT: "B032",
    errno.ENOTDIR: "B032",
    errno.ELOOP: "B035",
    errno.EACCES: "B037",
    errno.ENAMETOOLONG: "B041",
}

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
        self._index = {column: names.index(column) for column in layout.columns if column in names}
        self._findings = findings
        self._missing = frozenset((*layout.missing, ""))
        self._files = _Files(layout.table.parent, layout.roots)
        self._ids: dict[str, int] = {}
        self._images: dict[str, int] = {}

    def case(self, row: int, cells: list[str]) -> Case | None:
        """The case of a row, or None where an id or an image was refused."""
        layout = self._layout
        text = {column: cells[position] for column, position in self._index.items()}
        targets = {column: self._value(text.get(column)) for column in (*layout.value_columns, *layout.file_columns)}
        case_id = text.get(layout.case, "")
        where: dict[str, Any] = {"case": case_id or None, "row": row}
        sound = self._check_ids(text, where)
        images = {}
        for channel, column in layout.channels.items():
            image = self._image(text.get(column), {**where, "column": column}, new_id=sound)
            if image is not None:
                images[channel] = image
        files = {}
        for column in layout.file_columns:
            found = self._find(targets[column], {**where, "column": column})
            if found is not None:
                files[column] = found[0]
        if not sound or len(images) < len(layout.channels):
            return None
        return Case(
            case_id=case_id,
            patient=text[layout.patient],
            site=self._value(text.get(layout.site)) if layout.site else None,
            row=row,
            images=images,
            cells=targets,
            files=files,
            split=self._value(text.get(layout.split)) if layout.split else None,
        )

    def _value(self, cell: str | None) -> str | None:
        return None if cell in self._missing else cell

    def _check_ids(self, text: Mapping[str, str], where: Mapping[str, Any]) -> bool:
        layout, sound = self._layout, True
        for column in dict.fromkeys((layout.case, layout.patient)):
            if not text.get(column, "").strip():
                sound = False
                if column in text:
                    self._findings.reject("B016", **where, column=column, found="an empty id", expected="an id")
        row = where["row"]
        if layout.case in text and text[layout.case].strip():
            first = self._ids.setdefault(_folded(text[layout.case]), row)
            if first != row:
                sound = False
                found, fix = f"the id of row {first}", "give every case an id of its own"
                self._findings.reject("B017", **where, column=layout.case, found=found, expected="a new id", fix=fix)
        return sound

    def _image(self, cell: str | None, where: Mapping[str, Any], *, new_id: bool) -> Path | None:
        if cell is None:  # no such column, which is a finding of the header
            return None
        if cell in self._missing:
            fix = "leave the case out: this version wants every channel of every case"
            self._findings.reject("B076", **where, found="an empty cell", expected="an image file", fix=fix)
            return None
        found = self._find(cell, where)
        if found is None:
            return None
        path, real = found
        first = self._images.setdefault(real, where["row"])
        # A row that repeats an id repeats its images too, mostly: that is one fault.
        if first != where["row"] and new_id and not self._layout.allow_shared_image:
            shared, fix = f"the image of row {first}", "list cohort.allow: [shared-image] if meant"
            self._findings.reject("B019", **where, file=cell, found=shared, expected="a new image", fix=fix)
            return None
        return path

    def _find(self, cell: str | None, where: Mapping[str, Any]) -> tuple[Path, str] | None:
        if cell is None:
            return None
        try:
            return self._files.find(cell)
        except _FileFault as fault:
            self._findings.reject(
                fault.code, **where, file=cell, found=fault.found, expected=fault.expected, fix=fault.fix
            )
            return None


class _FileFault(Exception):
    """A file of the table was refused."""

    def __init__(self, code: str, found: str, expected: str, fix: str) -> None:
        super().__init__(code)
        self.code, self.found, self.expected, self.fix = code, found, expected, fix


class _Files:
    """Finds the files that a table names, and refuses those outside its folder and the declared roots."""

    def __init__(self, folder: Path, roots: Iterable[Path]) -> None:
        self._folder = os.path.abspath(folder)
        allowed = (folder, *roots)
        self._written = tuple(os.path.join(os.path.abspath(root), "") for root in allowed)
        self._real = tuple(os.path.join(os.path.realpath(root), "") for root in allowed)
        # Resolving a folder costs a system call per part; a cohort has many files in few folders.
        self._folders: dict[str, tuple[str, str]] = {}

    def find(self, text: str) -> tuple[Path, str]:
        """The file as a path to open, and its place with all links followed."""
        head, name = os.path.split(text)
        if head not in self._folders:
            folder = os.path.normpath(os.path.join(self._folder, head))
            self._folders[head] = (os.path.join(folder, ""), os.path.join(os.path.realpath(folder), ""))
        written, real = (folder + name for folder in self._folders[head])
        self._check_inside(written, real)
        try:
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(real)
                self._check_inside(written, real)
                mode = self._behind_link(real)
        except OSError as error:
            raise self._fault(error) from None
        if not stat.S_ISREG(mode):
            raise _FileFault("B036", "no regular file", "a regular file", "correct the path")
        return Path(written), real

    def _check_inside(self, written: str, real: str) -> None:
        if not _inside(real, self._real):
            linked = _inside(written, self._written)
            found = "a link that leads outside" if linked else "a path that leads outside"
            fix = "move the file, or list its folder in cohort.roots"
            raise _FileFault("B035" if linked else "B034", found, "a file under the table's folder", fix)

    @staticmethod
    def _behind_link(real: str) -> int:
        try:
            return os.stat(real).st_mode
        except FileNotFoundError:
            raise _FileFault("B035", "a link to nothing", "a file", "restore the file it points to") from None

    @staticmethod
    def _fault(error: OSError) -> Exception:
        code = _REFUSED.get(error.errno or 0)
        if code is None:
            return WorkError(
                f"looking for a file of the table failed: {error.strerror}; check the disk and start again"
            )
        return _FileFault(code, f"{error.strerror}", "a file", "correct the path, relative to the table's folder")


def _inside(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path is one of the folders or below it; folders end in a separator."""
    return (path + os.sep).startswith(folders)
