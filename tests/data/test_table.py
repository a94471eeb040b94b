"""Bytes to rows: what is no table, and what is repaired."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.data import table
from tests.data.cohort_files import HEADER, ROWS, layout_of, only, read, refused, write


def test_tab_separated(folder: Path) -> None:
    layout = replace(layout_of(folder), table=folder / "cohort.tsv")
    layout.table.write_text("\n".join((HEADER, *ROWS)).replace(",", "\t"), encoding="utf-8")

    cohort, findings = read(layout)

    assert findings == []
    assert [case.case_id for case in cohort.cases] == ["007", "7E5"]


def test_a_row_number_is_the_line_on_which_the_row_starts(folder: Path) -> None:
    rows = (ROWS[0] + ',"two\nlines of an undeclared column"', ROWS[1] + ",one")

    cohort, findings = read(write(folder, *rows, header=HEADER + ",remark"))

    assert [finding.code for finding in findings] == ["B014"]

    assert [case.row for case in cohort.cases] == [2, 4]


@pytest.mark.covers("B011")
@pytest.mark.parametrize(
    ("ends", "found"),
    [
        (("\r\n",) * 3, None),
        (("\n", "\n", ""), None),
        (("\r",) * 3, "line ends: 3 CR"),
        (("\r\n", "\n", "\n"), "line ends: 2 LF, 1 CRLF"),
    ],
)
def test_line_ends_of_other_systems(folder: Path, ends: tuple[str, ...], found: str | None) -> None:
    layout = layout_of(folder)
    layout.table.write_bytes("".join(map("".join, zip((HEADER, *ROWS), ends, strict=True))).encode())

    cohort, findings = read(layout)

    assert [(f.code, f.severity, f.found) for f in findings] == ([] if found is None else [("B011", "fixed", found)])
    assert [case.row for case in cohort.cases] == [2, 3]


@pytest.mark.covers("B011")
def test_a_line_end_inside_a_quoted_cell_is_none_of_the_table(folder: Path) -> None:
    rows = (ROWS[0] + ',"a\nb"', ROWS[1] + ",c")
    layout = layout_of(folder)
    layout.table.write_bytes("\r\n".join((HEADER + ",remark", *rows, "")).encode())

    assert [finding.code for finding in read(layout)[1]] == ["B014"]


@pytest.mark.covers("B001")
def test_b001_missing_table_and_folder_as_table(folder: Path) -> None:
    missing = only(refused(layout_of(folder)))
    assert (missing.code, missing.severity) == ("B001", "reject")
    assert "errno 2" in str(missing.found)

    assert only(refused(replace(layout_of(folder), table=folder / "images"))).code == "B001"


@pytest.mark.covers("B001")
def test_b001_a_pipe_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "cohort.csv")

    assert only(refused(layout_of(folder))).code == "B001"


@pytest.mark.covers("B002")
@pytest.mark.parametrize("content", [b"", HEADER.encode(), HEADER.encode() + b"\n,,,,,,\n\n"])
def test_b002_no_cases(folder: Path, content: bytes) -> None:
    layout = layout_of(folder)
    layout.table.write_bytes(content)

    finding = only(refused(layout))

    assert (finding.code, finding.found) == ("B002", "0 cases")


@pytest.mark.covers("B003")
def test_b003_byte_order_mark_is_dropped(folder: Path) -> None:
    layout = write(folder, *ROWS)
    layout.table.write_bytes(b"\xef\xbb\xbf" + layout.table.read_bytes())

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).severity) == ("B003", "fixed")
    assert cohort.columns[0] == "case_id"


@pytest.mark.covers("B004")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_b004_other_unicode(folder: Path, encoding: str) -> None:
    layout = write(folder, *ROWS)
    layout.table.write_text(layout.table.read_text(encoding="utf-8"), encoding=encoding)

    assert only(refused(layout)).code == "B004"


@pytest.mark.covers("B004")
def test_b004_a_latin_1_byte_is_located(folder: Path) -> None:
    layout = write(folder, *ROWS)
    content = layout.table.read_bytes().replace(b"Philips", b"Phil\xefps")
    layout.table.write_bytes(content)

    finding = only(refused(layout))

    assert (finding.code, finding.row) == ("B004", 3)
    assert finding.found == f"byte 0xef at offset {content.index(0xEF)}"


@pytest.mark.covers("B007")
def test_b007_every_row_too_long(folder: Path) -> None:
    finding = only(refused(write(folder, *(row + ",x" for row in ROWS))))

    assert (finding.code, finding.case, finding.row) == ("B007", None, None)
    assert finding.found == "8 fields in every row"
    assert str(finding.expected).startswith("7 fields")


@pytest.mark.covers("B008")
def test_b008_ragged_rows_are_left_out(folder: Path) -> None:
    long, short = ROWS[1] + ",x", "c3,p3"

    cohort, findings = read(write(folder, ROWS[0], long, short))

    assert [(finding.code, finding.row, finding.found) for finding in findings] == [
        ("B008", 3, "8 fields"),
        ("B008", 4, "2 fields"),
    ]
    assert [case.case_id for case in cohort.cases] == ["007"]


@pytest.mark.covers("B009")
def test_b009_the_line_of_an_unclosed_quote(folder: Path) -> None:
    finding = only(refused(write(folder, ROWS[0], '"' + ROWS[1], ROWS[0].replace("007", "c3"))))

    assert (finding.code, finding.row) == ("B009", 3)


@pytest.mark.covers("B010")
def test_b010_nul(folder: Path) -> None:
    finding = only(refused(write(folder, ROWS[0], ROWS[1].replace("p2", "p\0"))))

    assert (finding.code, finding.row) == ("B010", 3)


@pytest.mark.covers("B011")
def test_b011_blank_rows_are_counted(folder: Path) -> None:
    cohort, findings = read(write(folder, ROWS[0], "", ",,,,,,", ROWS[1], ""))

    assert (only(findings).code, only(findings).severity, only(findings).found) == ("B011", "fixed", "3 blank rows")
    assert [case.row for case in cohort.cases] == [2, 5]


@pytest.mark.covers("B001")
def test_b001_a_table_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    layout = write(folder, *ROWS)
    monkeypatch.setattr(Path, "open", refuse)

    finding = only(refused(layout))
    assert (finding.code, finding.found) == ("B001", "Permission denied (errno 13)")


@pytest.mark.covers("B004")
def test_b004_utf_16_without_a_mark(folder: Path) -> None:
    layout = write(folder, *ROWS)
    layout.table.write_bytes(layout.table.read_text(encoding="utf-8").encode("utf-16-le"))

    assert (only(refused(layout)).code, only(refused(layout)).found) == ("B004", "UTF-16 or UTF-32")


@pytest.mark.covers("B005")
@pytest.mark.parametrize(("sign", "name"), [(";", "a semicolon"), ("\t", "a tab"), ("|", "a vertical bar")])
def test_b005_another_delimiter_is_shown_and_not_guessed(folder: Path, sign: str, name: str) -> None:
    layout = layout_of(folder)
    # the decimal commas that come with a semicolon are no commas between columns
    content = "\n".join((HEADER, *ROWS)).replace(",", sign).replace("61.5", "61,5")
    layout.table.write_text(content, encoding="utf-8")

    finding = only(refused(layout))

    assert (finding.code, finding.severity, finding.row) == ("B005", "reject", 1)
    assert finding.found == f"{name} between columns"
    assert finding.expected == "a comma, as in every .csv file"
    assert "save it with commas" in str(finding.fix)
    assert layout.table.read_text(encoding="utf-8") == content


@pytest.mark.covers("B005")
def test_b005_commas_in_a_tsv_file(folder: Path) -> None:
    layout = replace(layout_of(folder), table=folder / "cohort.tsv")
    layout.table.write_text("\n".join((HEADER, *ROWS)), encoding="utf-8")

    assert (only(refused(layout)).code, only(refused(layout)).found) == ("B005", "a comma between columns")


@pytest.mark.covers("B009")
def test_b009_a_quote_that_opens_late_in_a_row_of_several_lines(folder: Path) -> None:
    first = '007,p1,"a\nb",images/a.nii.gz,,1,"train'

    finding = only(refused(write(folder, first, *ROWS[1:])))

    assert (finding.code, finding.row) == ("B009", 3)


@pytest.mark.covers("B029")
def test_b029_a_table_over_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = write(folder, *ROWS)
    size = layout.table.stat().st_size
    monkeypatch.setattr(table, "MAX_TABLE_BYTES", size)
    read(layout)
    monkeypatch.setattr(table, "MAX_TABLE_BYTES", size - 1)

    finding = only(refused(layout))

    assert (finding.code, finding.found, finding.expected) == ("B029", f"{size} bytes", f"at most {size - 1} bytes")


@pytest.mark.covers("B030")
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml", "zip archive, such as .xlsx"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (gzip.compress(HEADER.encode()), "gzip"),
        (b"\n <!DOCTYPE html><html><body><table>", "HTML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "XML"),
        (b"%PDF-1.7", "PDF"),
    ],
    ids=["xlsx", "xls", "gzip", "html", "xml", "pdf"],
)
def test_b030_another_type_of_file_is_named(folder: Path, content: bytes, kind: str) -> None:
    layout = layout_of(folder)
    layout.table.write_bytes(content)

    finding = only(refused(layout))

    assert (finding.code, finding.severity, finding.file) == ("B030", "reject", "cohort.csv")
    assert kind in str(finding.found)
    assert layout.table.read_bytes() == content


@pytest.mark.covers("B030")
def test_b030_json_as_a_table(folder: Path) -> None:
    layout = replace(layout_of(folder), table=folder / "cohort.json")
    layout.table.write_text('[{"case_id": "007"}]')

    assert (only(refused(layout)).code, only(refused(layout)).found) == ("B030", "JSON")


def test_form_is_judged_before_any_row_is(folder: Path) -> None:
    finding = only(refused(write(folder, ROWS[0].replace("images/a", "nowhere"), '"open')))

    assert finding.code == "B009"
