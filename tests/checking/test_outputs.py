from __future__ import annotations

import os
from pathlib import Path

import pytest

from medmtl import api
from medmtl import config as configuration
from medmtl.cli import main
from medmtl.errors import InputError
from tests.checking.scans import Scans


@pytest.mark.covers("B048")
@pytest.mark.parametrize("name", ["t1_1.nii.gz", "organ_2.nii.gz", "cohort.csv", "config.yaml"])
@pytest.mark.parametrize("link", ["same", "hard", "soft"])
@pytest.mark.parametrize("command", [["check", "--json"], ["plan", "--out"]])
def test_an_input_is_never_overwritten(
    tmp_path: Path, name: str, link: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scans = Scans(tmp_path, masks=True)
    config = scans.write()
    out = tmp_path / (name if link == "same" else "out.json")
    if link != "same":
        (os.link if link == "hard" else os.symlink)(tmp_path / name, out)
    before = scans.hashes()

    assert main([command[0], str(config), command[1], str(out)]) == 2

    assert scans.hashes() == before
    said = " ".join(capsys.readouterr().err.split())
    # a link is refused whatever it leads to
    assert ("[B164]" if link == "soft" else "[B048]") in said
    assert ("is a link" if link == "soft" else f"is the input {name}") in said


@pytest.mark.covers("B048")
@pytest.mark.parametrize("absent", ["size", "organ", "person"])
def test_a_column_that_the_table_lacks_hides_no_file(tmp_path: Path, absent: str) -> None:
    scans = Scans(tmp_path, masks=True)
    scans.rows = [{column: cell for column, cell in row.items() if column != absent} for row in scans.rows]
    config, before = scans.write(), scans.hashes()
    assert main(["check", str(config), "--json", str(tmp_path / "t1_1.nii.gz")]) == 2
    assert scans.hashes() == before


@pytest.mark.covers("B048", "B012")
@pytest.mark.parametrize(
    ("header", "image"),
    [
        ("id,person,t1,size,note,Note", "t1_0.nii.gz"),
        ("id,person,t1,size,t1,note", "t1_0.nii.gz"),
        ("id,person,t1,size,t1,note", "t1_1.nii.gz"),
        ("id,person,T1,size,t1,note", "t1_0.nii.gz"),
        ("id,person,t1,size,note,id", "t1_2.nii.gz"),
    ],
)
def test_a_name_that_stands_twice_hides_no_file(tmp_path: Path, header: str, image: str) -> None:
    scans = Scans(tmp_path)
    config = scans.write()
    rows = ("a,p,t1_0.nii.gz,1,t1_1.nii.gz,", "a,,t1_2.nii.gz,2,t1_3.nii.gz,")  # neither does what is wrong with an id
    (tmp_path / "cohort.csv").write_text("\n".join((header, *rows)))
    before = scans.hashes()
    assert main(["check", str(config), "--json", str(tmp_path / image)]) == 2
    assert scans.hashes() == before


def test_a_file_that_is_no_input_is_replaced(tmp_path: Path) -> None:
    config, out = Scans(tmp_path).write(), tmp_path / "out.json"
    out.write_text("old")
    assert main(["check", str(config), "--json", str(out)]) == 0
    assert out.read_text().strip() == "[]"


@pytest.mark.covers("B048")
def test_a_prediction_does_not_overwrite_what_it_reads(trained_run: Path, tmp_path: Path) -> None:
    case = api.load(trained_run, device="cpu").training_cohort()[0]
    image = tmp_path / "scan.nii.gz"
    image.write_bytes(next(iter(case.images.values())).read_bytes())
    out = tmp_path / "masks" / "lesion" / "scan.nii.gz"
    out.parent.mkdir(parents=True)
    os.link(image, out)
    content = image.read_bytes()

    with pytest.raises(InputError, match=r"^\[B048\] .*masks/lesion/scan.nii.gz would be overwritten"):
        api.predict(trained_run, [image], tmp_path, device="cpu")

    assert out.read_bytes() == image.read_bytes() == content
    assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.covers("B048")
def test_an_evaluation_does_not_overwrite_the_table(trained_run: Path, tmp_path: Path) -> None:
    table = configuration.load(trained_run / "config.yaml").cohort.table
    content = table.read_bytes()
    os.link(table, tmp_path / "cases.csv")

    with pytest.raises(InputError, match=r"^\[B048\] .*cases.csv would be overwritten and is the input cohort.csv"):
        api.evaluate(trained_run, out=tmp_path, device="cpu")

    assert table.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]


def other_cohort(folder: Path, table: str) -> Path:
    """A cohort whose table is called ``table`` and whose masks lie where those of a result would."""
    config = api.synth(folder, cases=10, seed=7)
    (folder / "masks").mkdir()
    (folder / "labels").rename(folder / "masks" / "lesion")
    text = (folder / "cohort.csv").read_text().replace("labels/", "masks/lesion/")
    (folder / "cohort.csv").unlink()
    (folder / table).write_text(text)
    config.write_text(config.read_text().replace("table: cohort.csv", f"table: {table}"))
    return config


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.covers("B048")
@pytest.mark.parametrize(
    ("table", "words"), [("cases.csv", "input cases.csv"), ("table.csv", r"input case_\d+.nii.gz")]
)
def test_an_evaluation_of_another_cohort_does_not_overwrite_its_files(
    trained_run: Path, tmp_path: Path, table: str, words: str
) -> None:
    config = other_cohort(tmp_path / "cohort", table)
    before = contents(tmp_path)

    with pytest.raises(InputError, match=rf"^\[B048\] .* would be overwritten and is the {words}"):
        api.evaluate(trained_run, config=config, out=config.parent, allow_overlap=True, device="cpu")

    assert contents(tmp_path) == before


@pytest.mark.covers("B048")
@pytest.mark.parametrize(
    ("table", "words"), [("predictions.csv", "input predictions.csv"), ("table.csv", r"input case_\d+.nii.gz")]
)
def test_a_prediction_of_a_configuration_does_not_overwrite_its_files(
    trained_run: Path, tmp_path: Path, table: str, words: str
) -> None:
    config = other_cohort(tmp_path / "cohort", table)
    if table != "predictions.csv":
        (config.parent / "predictions.csv").write_text("case_id\n")  # of earlier predictions, which may be replaced
    before = contents(tmp_path)

    with pytest.raises(InputError, match=rf"^\[B048\] .* would be overwritten and is the {words}"):
        api.predict(trained_run, config, config.parent, device="cpu")

    assert contents(tmp_path) == before
