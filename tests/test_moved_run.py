"""A run that was moved away from its cohort: what is said, and that writing the new place into its file suffices."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from medmtl.cli import main
from tests.conftest import TINY
from tests.faults.processes import fingerprint

pytestmark = pytest.mark.usefixtures("undrawn")

Captured = pytest.CaptureFixture[str]
QUIET = ["--device", "cpu", "--quiet"]


@pytest.fixture
def moved(trained_run: Path, tmp_path: Path) -> Path:
    """The tiny run in another folder, where its relative path to the table leads nowhere; the last commit is lost."""
    run = Path(shutil.copytree(trained_run, tmp_path / "moved" / "run"))
    shutil.rmtree(run / "checkpoints" / "step-000006")
    (run / "checkpoints" / "last").write_text("step-000004\n")
    return run


def table_of(run: Path) -> str:
    """The table's path as the run's configuration has it."""
    (found,) = re.findall(r"^  table: (.*)$", (run / "config.yaml").read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.covers("B001")
@pytest.mark.parametrize("command", [["evaluate"], ["report"]])
def test_a_table_that_is_not_there_is_told_with_its_path_and_the_file_that_names_it(
    command: list[str], moved: Path, capsys: Captured
) -> None:
    options = QUIET if command == ["evaluate"] else []
    assert main([*command, str(moved), *options]) == 2
    said = capsys.readouterr().err
    wanted = os.path.normpath(moved / table_of(moved))
    assert f"error: the table {wanted} cannot be read: [B001] file cohort.csv: found No such file" in said
    assert (
        f"; {moved / 'config.yaml'} names it, and where the cohort was moved its new place may be written there" in said
    )


@pytest.mark.covers("B145")
def test_a_moved_run_whose_file_says_the_new_place_is_resumed_evaluated_and_reported(
    moved: Path, trained_run: Path, tiny_cohort: Path, tmp_path: Path, capsys: Captured
) -> None:
    pairs = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    assert main(["train", str(tiny_cohort), "--out", str(moved), "--resume", *QUIET, *pairs]) == 2
    said = capsys.readouterr().err
    wanted, config = os.path.normpath(moved / table_of(moved)), moved / "config.yaml"
    advice = f"or write into {config} where {wanted} is now, and resume with its own: "
    assert "[B145] the configuration differs from the run's in cohort.table; " in said
    assert advice in said
    command = said.partition(advice)[2].partition("; ")[0]

    shutil.copytree(tiny_cohort.parent, tmp_path / "new place")
    config.write_text(config.read_text().replace(table_of(moved), "../../new place/cohort.csv"))
    assert main([*shlex.split(command)[1:], *QUIET]) == 0
    assert fingerprint(moved) == fingerprint(trained_run)
    assert main(["evaluate", str(moved), *QUIET]) == 0
    (moved / "evaluation" / "val" / "report.html").unlink()
    assert main(["report", str(moved)]) == 0
    assert (moved / "evaluation" / "val" / "report.html").is_file()
