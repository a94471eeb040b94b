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
