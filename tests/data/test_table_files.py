"""The files that a table names: where they may lie, and what is said of those that cannot be used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.errors import WorkError
from tests.data.cohort_files import ROWS, only, read, write


@pytest.mark.covers("B032")
def test_b032_all_missing_files_are_listed(folder: Path) -> None:
    rows = (
        ROWS[0].replace("images/a", "images/x"),
        ROWS[1].replace("images/b", "images/b.nii.gz/y"),
        "c3,p3,GE,images/c.nii.gz,labels/z.nii.gz,5,train",
    )

    cohort, findings = read(write(folder, *rows))

    assert [(finding.code, finding.row, finding.column, finding.file) for finding in findings] == [
        ("B032", 2, "image", "images/x.nii.gz"),
        ("B032", 3, "image", "images/b.nii.gz/y.nii.gz"),
        ("B032", 4, "label", "labels/z.nii.gz"),
    ]
    assert [case.case_id for case in cohort.cases] == ["c3"]
    assert cohort.cases[0].files == {}


@pytest.mark.covers("B034")
@pytest.mark.parametrize("spelling", ["../outside.nii.gz", "images/../../outside.nii.gz", "absolute"])
def test_b034_paths_that_leave_the_folder(folder: Path, spelling: str) -> None:
    outside = folder.parent / "outside.nii.gz"
    outside.touch()
    written = str(outside) if spelling == "absolute" else spelling
    layout = write(folder, ROWS[0].replace("images/a.nii.gz", written))

    cohort, findings = read(layout)

    assert (only(findings).code, only(findings).file, cohort.cases) == ("B034", written, ())
    cohort, findings = read(replace(layout, roots=(folder.parent,)))
    assert findings == []
    assert cohort.cases[0].images == {"t1": outside}


@pytest.mark.covers("B034")
def test_b034_a_folder_whose_name_begins_like_the_root_is_outside(folder: Path) -> None:
    beside = folder.parent / "cohort2"
    beside.mkdir()
    (beside / "a.nii.gz").touch()

    _, findings = read(write(folder, ROWS[0].replace("images/a", "../cohort2/a")))

    assert only(findings).code == "B034"


@pytest.mark.covers("B035")
def test_b035_links_that_leave_lead_nowhere_or_loop(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "o.nii.gz").touch()
    (folder / "images/out.nii.gz").symlink_to(outside / "o.nii.gz")
    (folder / "outdir").symlink_to(outside)
    (folder / "images/dangling.nii.gz").symlink_to("nowhere.nii.gz")
    (folder / "images/loop.nii.gz").symlink_to("loop.nii.gz")
    names = ("images/out", "outdir/o", "images/dangling", "images/loop")
    layout = write(folder, *(f"c{n},p,GE,{name}.nii.gz,,1,train" for n, name in enumerate(names)))

    cohort, findings = read(layout)

    assert [(finding.code, finding.row) for finding in findings] == [("B035", row) for row in (2, 3, 4, 5)]
    assert cohort.cases == ()
    _, findings = read(replace(layout, roots=(outside,), allow_shared_image=True))
    assert [finding.row for finding in findings] == [4, 5]


def test_a_link_inside_the_folder_keeps_its_own_name(folder: Path) -> None:
    (folder / "store").mkdir()
    (folder / "store/0f3a").touch()
    (folder / "images/link.nii.gz").symlink_to("../store/0f3a")

    cohort, findings = read(write(folder, ROWS[0].replace("images/a", "images/link")))

    assert findings == []
    assert cohort.cases[0].images == {"t1": folder / "images/link.nii.gz"}


@pytest.mark.covers("B036")
def test_b036_folders_and_pipes(folder: Path) -> None:
    os.mkfifo(folder / "images/pipe.nii.gz")
    rows = ("c1,p1,GE,images,,1,train", "c2,p2,GE,images/pipe.nii.gz,,1,train", "c3,p3,GE,.,,1,train")

    _, findings = read(write(folder, *rows))

    assert [(finding.code, finding.row) for finding in findings] == [("B036", 2), ("B036", 3), ("B036", 4)]


@pytest.mark.covers("B041")
def test_b041_name_too_long(folder: Path) -> None:
    _, findings = read(write(folder, ROWS[0].replace("images/a", "x" * 300)))

    assert only(findings).code == "B041"


@pytest.mark.covers("B033")
def test_b033_the_working_folder_plays_no_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoy = folder.parent / "elsewhere"
    (decoy / "images").mkdir(parents=True)
    (decoy / "images/only_here.nii.gz").touch()
    monkeypatch.chdir(decoy)

    cohort, findings = read(write(folder, ROWS[0], ROWS[1].replace("images/b", "images/only_here")))

    finding = only(findings)
    assert (finding.code, finding.file) == ("B032", "images/only_here.nii.gz")
    assert "relative to the table's folder" in str(finding.fix)
    assert cohort.cases[0].images == {"t1": folder / "images/a.nii.gz"}


@pytest.mark.covers("B035")
def test_b035_the_target_of_a_link_is_named(folder: Path) -> None:
    outside = folder.parent / "outside.nii.gz"
    outside.touch()
    (folder / "images/out.nii.gz").symlink_to(outside)
    (folder / "images/dangling.nii.gz").symlink_to("nowhere.nii.gz")
    (folder / "images/loop.nii.gz").symlink_to("loop.nii.gz")
    layout = write(folder, *(f"c{n},p,GE,images/{n}.nii.gz,,1,train" for n in ("out", "dangling", "loop")))

    leaving, dangling, loop = read(layout)[1]

    assert (leaving.found, str(outside) in str(leaving.fix)) == ("a link that leads outside", True)
    assert (dangling.found, str(folder / "images/nowhere.nii.gz") in str(dangling.fix)) == ("a link to nothing", True)
    assert loop.found == "a loop of links (errno 40)"


@pytest.mark.covers("B037")
@pytest.mark.parametrize("code", [1, 13])
def test_b037_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    lstat = os.lstat

    def refuse(path: str) -> os.stat_result:
        if path.endswith("a.nii.gz"):
            raise PermissionError(code, "no")
        return lstat(path)

    layout = write(folder, *ROWS)
    monkeypatch.setattr("medmtl.data.table_files.os.lstat", refuse)

    image, label = read(layout)[1]

    assert (image.code, image.severity, image.column) == ("B037", "reject", "image")
    assert image.found == f"no permission (errno {code})"
    assert (label.code, label.column) == ("B037", "label")


def test_a_failing_disk_is_not_called_a_bad_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> os.stat_result:
        raise OSError(5, "Input/output error")

    layout = write(folder, *ROWS)
    monkeypatch.setattr("medmtl.data.table_files.os.lstat", fail)

    with pytest.raises(WorkError, match="Input/output error"):
        read(layout)


@pytest.mark.covers("B038")
@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "it's",
        'say "x"',
        "$HOME",
        "*",
        "[a]",
        "-rf",
        "\U0001f9e0",
        "\u05e9\u05dc\u05d5\u05dd",
        "a;b,c",
        "a\\b",
        "%41",
        "~",
    ],
)
def test_b038_names_are_taken_as_they_are(folder: Path, name: str) -> None:
    (folder / "images" / f"{name}.nii.gz").touch()
    (folder / f"{name}.nii.gz").touch()
    cells = [f'"{part}{name}.nii.gz"'.replace(f"{name}", name.replace('"', '""')) for part in ("images/", "")]

    cohort, findings = read(write(folder, *(f"c{n},p{n},GE,{cell},,1,train" for n, cell in enumerate(cells))))

    assert findings == []
    assert [case.images["t1"] for case in cohort.cases] == [
        folder / "images" / f"{name}.nii.gz",
        folder / f"{name}.nii.gz",
    ]


@pytest.mark.covers("B039")
def test_b039_a_table_in_utf_8_cannot_name_latin_1_bytes(folder: Path) -> None:
    there = os.fsencode(folder / "images") + b"/caf\xe9.nii.gz"
    os.close(os.open(there, os.O_CREAT))

    finding = only(read(write(folder, ROWS[0].replace("images/a", "images/caf\xe9"), ROWS[1]))[1])

    assert (finding.code, finding.severity, finding.row, finding.column) == ("B039", "reject", 2, "image")
    assert finding.file == "images/caf\xe9.nii.gz"
    assert finding.found == "caf\\udce9.nii.gz"
    assert "rename the file" in str(finding.fix)
    assert os.path.exists(there)


@pytest.mark.covers("B039")
def test_b039_the_cohort_may_lie_in_a_folder_of_any_bytes(folder: Path) -> None:
    write(folder, *ROWS)
    place = Path(os.fsdecode(os.fsencode(folder.parent) + b"/caf\xe9"))
    folder.rename(place)

    cohort, findings = read(write(place, ROWS[0], ROWS[1].replace("images/b", "images/x")))

    assert only(findings).code == "B032"
    only(findings).sentence().encode("ascii")
    assert cohort.cases[0].images["t1"].is_file()


@pytest.mark.covers("B039")
def test_b039_a_name_that_the_system_cannot_encode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def refuse(path: str) -> os.stat_result:
        if path.endswith("b.nii.gz"):
            raise UnicodeEncodeError("ascii", "\xe9", 0, 1, "no")
        return lstat(path)

    layout = write(folder, ROWS[1])
    monkeypatch.setattr("medmtl.data.table_files.os.lstat", refuse)

    assert (only(read(layout)[1]).code, only(read(layout)[1]).severity) == ("B039", "reject")


@pytest.mark.covers("B040")
@pytest.mark.parametrize(
    ("there", "written", "found"),
    [
        ("images/caf\u00e9.nii.gz", "images/cafe\u0301.nii.gz", "caf\\xe9.nii.gz"),
        ("images/cafe\u0301.nii.gz", "images/caf\u00e9.nii.gz", "cafe\\u0301.nii.gz"),
        ("images/Scan.nii.gz", "images/scan.nii.gz", "Scan.nii.gz"),
        ("images/scan.nii.gz", "images/scan.NII.gz", "scan.nii.gz"),
        ("Visits/one/s.nii.gz", "visits/one/s.nii.gz", "Visits"),
    ],
)
def test_b040_the_file_exists_under_another_spelling(folder: Path, there: str, written: str, found: str) -> None:
    (folder / there).parent.mkdir(parents=True, exist_ok=True)
    (folder / there).touch()

    finding = only(read(write(folder, ROWS[0].replace("images/a.nii.gz", written), ROWS[1]))[1])

    assert (finding.code, finding.severity, finding.row, finding.column) == ("B040", "reject", 2, "image")
    assert (finding.file, finding.found) == (written, found)
    assert "another spelling" in str(finding.fix)


@pytest.mark.covers("B040")
def test_b040_each_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    listdir = os.listdir

    def count(path: str) -> list[str]:
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr("medmtl.data.table_files.os.listdir", count)

    _, findings = read(write(folder, *(f"c{n},p{n},GE,images/none{n}.nii.gz,,1,train" for n in range(50))))

    assert [finding.code for finding in findings] == ["B032"] * 50
    assert listed == [str(folder / "images")]


@pytest.mark.covers("B041")
def test_b041_path_too_long(folder: Path) -> None:
    finding = only(read(write(folder, ROWS[0].replace("images/a", "x/" * 2100 + "a")))[1])

    assert (finding.code, finding.severity, finding.found) == ("B041", "reject", "too long (errno 36)")
    assert "4096" in str(finding.expected)
