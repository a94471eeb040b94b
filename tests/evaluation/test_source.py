"""An evaluation takes the place of nothing but an evaluation of the same cohort by the same run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import medmtl
from medmtl.cli import main
from medmtl.errors import ArtefactError, InputError
from tests.evaluation.test_external import other_cohort, rows_in, write_rows
from tests.evaluation.test_place import contents

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def evaluated(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its evaluation ``scores``. Read only."""
    place = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(trained_run, place / "run")
    medmtl.evaluate(place / "run", out=place / "scores", device="cpu")
    return place


@pytest.fixture
def place(evaluated: Path, tmp_path: Path) -> Path:
    """The same, to be changed at will."""
    return shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)  # as far from the cohort as the run was


def longer(run: Path) -> Path:
    """A run that differs from another in its length alone."""
    other = shutil.copytree(run, run.with_name("longer"))
    text = (other / "config.yaml").read_text()
    assert text.count("steps: 6\n") == 1
    (other / "config.yaml").write_text(text.replace("steps: 6\n", "steps: 7\n"))
    return other


def started_elsewhere(run: Path) -> Path:
    """A run that differs from another in what the manifest alone tells, such as the weights that it started from."""
    other = shutil.copytree(run, run.with_name("started"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "told": "other weights"}))
    return other


@pytest.mark.covers("B042")
@pytest.mark.parametrize("made", [longer, started_elsewhere])
def test_the_evaluation_of_another_run_is_not_replaced(
    place: Path, made: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    other, before = made(place / "run"), contents(place / "scores")
    words = ["evaluate", str(other), "--out", str(place / "scores"), "--device", "cpu", "--quiet"]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"error: [B042] {place / 'scores'} holds the evaluation of split val by the run {place / 'run'}, and not that "
        f"of split val by the run {other}; choose another --out; or "
        "remove that folder, if it is to be replaced\n"
    )
    assert contents(place / "scores") == before


@pytest.mark.covers("B042")
def test_the_evaluation_of_another_split_is_not_replaced(place: Path) -> None:
    before = contents(place / "scores")
    with pytest.raises(InputError, match=r"^\[B042\] .* holds the evaluation of split val .* not that of split train"):
        medmtl.evaluate(place / "run", split="train", out=place / "scores", device="cpu")  # type: ignore[arg-type]
    assert contents(place / "scores") == before


def test_a_run_that_was_moved_and_answers_otherwise_is_the_same_one(place: Path) -> None:
    (place / "run").rename(moved := place / "elsewhere")
    text = (moved / "config.yaml").read_text()
    assert text.count("overlap: 0.5\n") == 1
    (moved / "config.yaml").write_text(text.replace("overlap: 0.5\n", "overlap: 0.25\n"))
    medmtl.evaluate(moved, out=place / "scores", device="cpu")
    assert json.loads((place / "scores" / "source.json").read_text())["run"] == "../elsewhere"


def test_an_evaluation_that_does_not_say_whose_it_is_is_made_again(place: Path) -> None:
    (place / "scores" / "source.json").unlink()
    medmtl.evaluate(longer(place / "run"), out=place / "scores", device="cpu")
    assert json.loads((place / "scores" / "source.json").read_text())["run"] == "../longer"


@pytest.mark.parametrize(("key", "value"), [("run", 3), ("config", 3), ("cases", [3]), ("split", None)])
def test_a_damaged_source_is_refused(place: Path, key: str, value: object) -> None:
    path = place / "scores" / "source.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ArtefactError, match=r"source\.json does not say whose evaluation this is; remove that file"):
        medmtl.evaluate(place / "run", out=place / "scores", device="cpu")


@pytest.mark.covers("B042")
def test_two_cohorts_of_one_name_do_not_mix(place: Path) -> None:
    run, first, second = place / "run", other_cohort(place / "a"), other_cohort(place / "b", seed=8)
    assert first.name == second.name
    (scores,) = medmtl.evaluate(run, config=first, device="cpu").values()
    before = contents(scores.folder)
    for again in (lambda: medmtl.evaluate(run, config=second, device="cpu"), lambda: medmtl.report(run, config=second)):
        with pytest.raises(InputError) as raised:
            again()
        assert str(raised.value) == (
            f"[B042] {scores.folder} holds the evaluation of the cohort of {first} by the run {run}, and not that of "
            f"the cohort of {second} by the run {run}; rename the configuration, or choose a folder by --out; or "
            "remove that folder, if it is to be replaced"
        )
    assert contents(scores.folder) == before
    with pytest.raises(InputError, match=r"^\[B042\] .* of split val by .* not that of the cohort of .*/b/oslo\.yaml "):
        medmtl.evaluate(run, config=second, out=place / "scores", device="cpu")
    (scores,) = medmtl.evaluate(run, config=second, out=place / "b-scores", device="cpu").values()
    assert scores.metrics["cases"] == 10


@pytest.mark.covers("B042")
def test_a_part_of_a_cohort_does_not_replace_the_whole(place: Path) -> None:
    run, config = place / "run", other_cohort(place / "a")
    (scores,) = medmtl.evaluate(run, config=config, out=place / "b-scores", device="cpu").values()
    part = shutil.copy(config, config.with_name("women.yaml"))
    with pytest.raises(InputError, match=r"^\[B042\] .* the cohort of .*/oslo\.yaml by .* of .*/women\.yaml by "):
        medmtl.evaluate(run, config=part, out=scores.folder, device="cpu")


def test_a_run_that_is_moved_away_from_a_cohort_knows_it_again(place: Path) -> None:
    config = other_cohort(place / "a")
    medmtl.evaluate(place / "run", config=config, device="cpu")
    (place / "runs").mkdir()
    moved = (place / "run").rename(place / "runs" / "run")
    text = (moved / "config.yaml").read_text()
    table = next(line.split()[-1] for line in text.splitlines() if "table: " in line)
    (moved / "config.yaml").write_text(text.replace(table, f"../{table}"))
    (scores,) = medmtl.evaluate(moved, config=config, device="cpu").values()
    held = json.loads((scores.folder / "source.json").read_text())
    assert scores.folder == moved / "evaluation" / "oslo-all" and held["config"].startswith("../../../../a/")


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_a_damaged_source_keeps_nobody_from_the_evaluation_of_a_runs_own_cohort(place: Path, damage: str) -> None:
    medmtl.evaluate(place / "run", device="cpu")
    path = place / "run" / "evaluation" / "val" / "source.json"
    path.write_text(damage)
    medmtl.evaluate(place / "run", device="cpu")
    assert json.loads(path.read_text())["split"] == "val"
    shutil.copytree(path.parent, place / "other")
    (place / "other" / "source.json").write_text(damage)
    with pytest.raises(ArtefactError, match=r"source\.json does not say whose evaluation this is; remove that file"):
        medmtl.evaluate(place / "run", out=place / "other", device="cpu")


def test_a_cohort_that_grows_or_shrinks_is_the_same_one_and_no_mask_of_a_lost_case_stays(place: Path) -> None:
    run, config = place / "run", other_cohort(place / "a")
    rows = rows_in(config)
    folder = run / "evaluation" / "oslo-all"
    for held in (rows[:6], rows, rows[4:]):
        write_rows(config, held)
        medmtl.evaluate(run, config=config, device="cpu")
        masks = {path.name.removesuffix(".nii.gz") for path in (folder / "masks" / "lesion").iterdir()}
        assert masks - {"mine"} == {row["id"] for row in held}
        (folder / "masks" / "lesion" / "mine.nii.gz").write_bytes(b"drawn by hand")
    assert (folder / "masks" / "lesion" / "mine.nii.gz").read_bytes() == b"drawn by hand"


@pytest.mark.parametrize("given", ["vall", ""])
def test_a_split_that_is_none_is_refused_with_all_that_are(trained_run: Path, tmp_path: Path, given: str) -> None:
    with pytest.raises(InputError, match=rf"^no split is called '{given}'; known: train, val, test and all$"):
        medmtl.evaluate(trained_run, split=given, out=tmp_path / "out", device="cpu")  # type: ignore[arg-type]
