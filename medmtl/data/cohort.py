"""The cohort table: text in, validated cases out, every fault of every row in one pass.

Cells stay text, exactly as written. Files are looked up, and kept inside the table's folder, but not opened. The codes
are those of the catalogue in ``docs/reliability.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from medmtl.data.case import Case
from medmtl.data.cell import NUMBER, control_character, folded, is_formula, is_missing_word
from medmtl.data.finding import Findings, shown
from medmtl.data.table import Table, read_table
from medmtl.data.table_files import FileFault, TableFiles
from medmtl.errors import CohortError
from medmtl.spelling import nearest

MAX_ID_BYTES = 200
MOST_PLACES = 8  # of columns that nothing uses
MAX_EXPONENT = 5  # characters of an id's exponent with its E; beyond, it is a text


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
        covariates: columns whose cells are clinical inputs.
        split: column of the split, where there is one.
        missing: cells that mean "not labelled", besides the empty one; of the patient's column, that nobody is named.
        roots: folders outside the table's own that may be read.
        allow_shared_image: whether two rows may name one image.
        optional: channels that a row may lack, as long as it has another one.
        may_lack: columns that the table need not have; without one all of its cells are empty.
    """

    table: Path
    case: str
    patient: str
    channels: Mapping[str, str]
    site: str | None = None
    value_columns: tuple[str, ...] = ()
    file_columns: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    split: str | None = None
    missing: tuple[str, ...] = ("",)
    roots: tuple[Path, ...] = ()
    allow_shared_image: bool = False
    optional: tuple[str, ...] = ()
    may_lack: frozenset[str] = frozenset()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every declared column once."""
        declared = (self.case, self.patient, self.site, *self.channels.values(), *self.value_columns)
        others = (*self.file_columns, *self.covariates, self.split)
        return tuple(dict.fromkeys(name for name in (*declared, *others) if name is not None))


@dataclass(frozen=True)
class Cohort:
    """The readable rows of a table.

    Attributes:
        table: the file.
        cases: rows whose ids and images were not refused, in the table's order.
        sha256: hash of the table's bytes.
        columns: the header, as written.
        left_out: rows with sound ids and a refused image, in the table's order. They are no cases, but what their
            other cells say is checked with the others'.
        unidentified: how many rows are in neither, so that a rule about the whole cohort cannot be judged.
        tables: name -> hash of the table's bytes, where several cohorts are joined.
    """

    table: Path
    cases: tuple[Case, ...]
    sha256: str
    columns: tuple[str, ...]
    left_out: tuple[Case, ...] = ()
    unidentified: int = 0
    tables: Mapping[str, str] = field(default_factory=dict)

    @property
    def identified(self) -> tuple[Case, ...]:
        """Cases and rows left out, in the table's order, and cohort by cohort where several are joined."""
        return tuple(sorted((*self.cases, *self.left_out), key=lambda case: (case.cohort or "", case.row)))


def read_cohort(layout: CohortLayout, findings: Findings) -> Cohort:
    """Read every row of the table and find every file it names.

    Args:
        layout: what the columns mean.
        findings: gets every fault. A row with a refused id or image is left out of the cases; a refused label file is
            left out of its case.

    Raises:
        CohortError: if the table cannot be read as one, or lacks a declared column; carries all findings.
        WorkError: if the file system fails.
    """
    table = read_table(layout.table, layout.columns, findings)
    before = len(findings.rejected())
    _check_header(table.names, layout, findings)
    faults = findings.rejected()[before:]
    reader = _RowReader(layout, table, findings)
    for row, cells in table.rows():
        reader.read(row, cells)
    if faults:
        message = f"the header of {table.path.name} lacks a declared column or has one twice: {faults[0].sentence()}"
        raise CohortError(message, tuple(findings))
    return reader.cohort()


def _check_header(names: tuple[str, ...], layout: CohortLayout, findings: Findings) -> None:
    """Refuse a declared column that is not there once. Names of undeclared columns are not shown: they may identify."""
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        first = seen.setdefault(folded(name), number)
        if first != number:
            column = name if name in layout.columns else None
            found, expected = f"columns {first} and {number} have one name", "names that differ in more than case"
            findings.reject("B012", row=1, column=column, found=found, expected=expected, fix="rename one of them")
    for column in layout.columns:
        if column not in names and column not in layout.may_lack:
            guess = nearest(column, names)
            fix = f"did you mean {shown(guess)!r}?" if guess else "correct the configuration or the header"
            findings.reject("B013", row=1, column=column, found="no such column", expected="exactly this name", fix=fix)
    extra = [number for number, name in enumerate(names, start=1) if name not in layout.columns]
    if extra:
        which = ", ".join(map(str, extra[:MOST_PLACES])) + (", ..." if len(extra) > MOST_PLACES else "")
        found = f"{len(extra)} column{'s' if len(extra) > 1 else ''} that nothing uses"
        findings.warn("B014", row=1, found=found, fix=f"ignored; counted from the left: {which}")
    if layout.patient == layout.case:
        fix = "name a patient column if one person can have several cases"
        findings.warn("B022", column=layout.case, found="each case declared to be a person", fix=fix)


class _RowReader:
    """Turns one row after the other into a case, remembering what must not come twice."""

    def __init__(self, layout: CohortLayout, table: Table, findings: Findings) -> None:
        self._layout = layout
        self._table = table
        self._index = {column: table.names.index(column) for column in layout.columns if column in table.names}
        texts = (layout.case, layout.patient, layout.site, *layout.value_columns, *layout.covariates)
        self._texts = tuple(column for column in texts if column)
        self._findings = findings
        self._missing = frozenset((*layout.missing, ""))
        self._files = TableFiles(layout.table.parent, layout.roots)
        self._ids: dict[str, int] = {}
        self._spellings: dict[str, set[str]] = {layout.case: set(), layout.patient: set()}
        if layout.site:
            self._spellings.setdefault(layout.site, set(self._missing))
        self._first: dict[tuple[str, Decimal | str], tuple[str, int]] = {}
        self._images: dict[str, int] = {}
        self._formulas: Counter[str] = Counter()
        self._nameless: Counter[str] = Counter()  # patients whose id is a word for "missing"
        self._cases: list[Case] = []
        self._left_out: list[Case] = []
        self._unidentified = table.left_out

    def cohort(self) -> Cohort:
        """What was read, after the findings that count over all rows."""
        for column, count in self._formulas.items():
            found, fix = f"{count} cells that begin with =, +, - or @", "kept as text, quoted in CSV that medmtl writes"
            self._findings.fixed("B026", column=column, found=found, fix=fix)
        for word, count in self._nameless.items():
            found, fix = f"{word} in {count} rows", "kept as one person; list it in cohort.missing if it names nobody"
            if count > 1:
                column, expected = self._layout.patient, "an id per person"
                self._findings.warn("B015", column=column, found=found, expected=expected, fix=fix)
        table = self._table
        return Cohort(
            table.path, tuple(self._cases), table.sha256, table.names, tuple(self._left_out), self._unidentified
        )

    def read(self, row: int, cells: list[str]) -> None:
        """Take in one row."""
        layout = self._layout
        text = {column: cells[position] for column, position in self._index.items()}
        where: dict[str, Any] = {"case": text.get(layout.case) or None, "row": row}
        clean = self._drop_controls(text, where)
        for column in dict.fromkeys(self._texts):
            self._formulas.update([column] if is_formula(self._value(text.get(column)) or "") else [])
        values = (*layout.value_columns, *layout.file_columns, *layout.covariates)
        stated = {column: self._value(text.get(column)) for column in values}
        sound = self._check_ids(text, where) and clean
        images, whole = self._images_of(text, where, new_id=sound)
        files = {}
        for column in layout.file_columns:
            found = self._find(stated[column], {**where, "column": column}, label=True)
            if found is not None:
                files[column] = found[0]
        if not sound:
            self._unidentified += 1
            return
        case = Case(
            case_id=text[layout.case],
            patient=text[layout.patient],
            site=self._value(text.get(layout.site)) if layout.site else None,
            row=row,
            images=images,
            cells=stated,
            files=files,
            split=self._value(text.get(layout.split)) if layout.split else None,
        )
        (self._cases if whole else self._left_out).append(case)

    def _images_of(
        self, text: Mapping[str, str], where: Mapping[str, Any], *, new_id: bool
    ) -> tuple[dict[str, Path], bool]:
        """The row's images in the declared order, and whether they are all that it must have."""
        images: dict[str, Path] = {}
        absent = {name for name in self._layout.optional if text.get(self._layout.channels[name]) in self._missing}
        wanted = {name: column for name, column in self._layout.channels.items() if name not in absent}
        for channel, column in wanted.items():
            image = self._image(text.get(column), {**where, "column": column}, new_id=new_id)
            if image is not None:
                images[channel] = image
        if not wanted:
            found, fix = "no channel at all", "name one image or more, or remove the row"
            self._findings.reject("B076", **where, found=found, expected="one channel or more", fix=fix)
        return images, bool(wanted) and len(images) == len(wanted)

    def _value(self, cell: str | None) -> str | None:
        return None if cell in self._missing else cell

    def _drop_controls(self, text: dict[str, str], where: Mapping[str, Any]) -> bool:
        """Whether no cell holds a control character or a line break; one that does is not looked at further."""
        broken = {column: sign for column, cell in text.items() if (sign := control_character(cell)) is not None}
        for column, sign in broken.items():
            del text[column]
            found, fix = f"the control character U+{ord(sign):04X}", "remove it"
            self._findings.reject("B010", **where, column=column, found=found, expected="text on one line", fix=fix)
        return not broken

    def _check_ids(self, text: Mapping[str, str], where: Mapping[str, Any]) -> bool:
        layout, row, sound = self._layout, where["row"], True
        for column in dict.fromkeys((layout.case, layout.patient)):
            written = text.get(column, "")
            # a case is told from all others by any text, but everybody whose id is missing would be one person
            missing = column != layout.case and written in self._missing
            if missing or not written.strip():
                sound = False
                if column in text:
                    found = f"{written}, as in cohort.missing" if written.strip() else "empty"
                    fix = "give the row its id, or remove the row"
                    self._findings.reject("B016", **where, column=column, found=found, expected="an id", fix=fix)
        if text.get(layout.case, "").strip():
            first = self._ids.setdefault(folded(text[layout.case]), row)
            if first != row:
                sound = False
                found, fix = f"the id of row {first}", "give every case an id of its own"
                self._findings.reject("B017", **where, column=layout.case, found=found, expected="a new id", fix=fix)
        if sound:
            self._doubt_ids(text, where)
        return sound

    def _doubt_ids(self, text: Mapping[str, str], where: Mapping[str, Any]) -> None:
        """Ids and sites that are kept as they are, but that a person or a program may take for something else."""
        case_id, patient = text[self._layout.case], text[self._layout.patient]
        self._nameless.update([patient] if is_missing_word(patient) else [])
        if _unfit_as_a_name(case_id):
            expected, fix = "an id that could name a file", "kept; its files have an encoded name, which tables state"
            self._findings.warn("B018", **where, column=self._layout.case, found=case_id, expected=expected, fix=fix)
        for column, known in self._spellings.items():
            written = text.get(column)
            if written is None or written in known:
                continue
            known.add(written)
            first, row = self._first.setdefault((column, sameness(written)), (written, where["row"]))
            if first != written:
                expected, fix = (
                    f"one spelling, as {shown(first)} of row {row}",
                    "kept apart; write both alike if they are one",
                )
                self._findings.warn("B015", **where, column=column, found=written, expected=expected, fix=fix)

    def _image(self, cell: str | None, where: Mapping[str, Any], *, new_id: bool) -> Path | None:
        if cell is None:  # no such column or a broken cell, which is a finding of its own
            return None
        if cell in self._missing:
            fix = "name the image, remove the row, or declare the channel as {column: ..., optional: true}"
            self._findings.reject("B076", **where, found="an empty cell", expected="an image file", fix=fix)
            return None
        found = self._find(cell, where)
        if found is None:
            return None
        path, real = found
        if self._images.get(real) == where["row"]:  # of another channel; a configuration has no column twice
            wanted, fix = "an image per channel", "name the channel's own image; a case may lack an optional channel"
            self._findings.reject(
                "B020", **where, file=cell, found="the image of another channel", expected=wanted, fix=fix
            )
            return None
        first = self._images.setdefault(real, where["row"])
        # A row that repeats an id repeats its images too, mostly: that is one fault.
        if first != where["row"] and new_id and not self._layout.allow_shared_image:
            shared, fix = f"the image of row {first}", "list cohort.allow: [shared-image] if it is one patient's"
            self._findings.reject("B019", **where, file=cell, found=shared, expected="a new image", fix=fix)
            return None
        return path

    def _find(self, cell: str | None, where: Mapping[str, Any], *, label: bool = False) -> tuple[Path, str] | None:
        if cell is None:
            return None
        try:
            return self._files.find(cell)
        except FileFault as fault:
            if label and fault.code == "B032" and is_missing_word(cell):
                fix = "list the word in cohort.missing, or empty the cell"
                self._findings.reject("B094", **where, found=cell, expected="a label file or an empty cell", fix=fix)
                return None
            self._findings.reject_fault(fault, **where, file=cell)
            return None


def _unfit_as_a_name(case_id: str) -> bool:
    """Whether a case id would be a path, an option or too long as a file name."""
    long = len(case_id.encode("utf-8")) > MAX_ID_BYTES
    return long or case_id.startswith("-") or any(part in case_id for part in ("/", "\\", ".."))


def sameness(written: str) -> Decimal | str:
    """Equal for two ids that are one number, or that differ in blanks and case only."""
    match = NUMBER.fullmatch(written.strip())
    if match is None or len(match[3] or "") > MAX_EXPONENT:
        return folded(written)
    return Decimal(match[0])
