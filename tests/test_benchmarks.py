"""The benchmarks at equal time: what they count and compare, on numbers that are known."""

from __future__ import annotations

import argparse
import csv
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medmtl.data.volume import Grid
from medmtl.errors import InterruptedRun, NumericError
from medmtl.run_folder import RunFolder
from medmtl.tasks.segmentation import SegmentationOptions
from medmtl.tasks.segmentation.scores import mask_scores
from medmtl.training.session import open_session
from medmtl.training.step import train_step
from tests.stand_in import write_stand_in

ROOT = Path(__file__).parents[1]
COHORTS = ("hippocampus", "cine")
# MONAI makes all of its readers at once, also one that is not there
LOADS = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """Imports a module of ``benchmarks/``, whose modules find each other as they do when one of them is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks" / "nnunet"))
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module


def row(**dice: dict[str, float]) -> dict[str, Any]:
    return {"dice": dice}


def test_differences_are_means_over_seeds_then_over_cases(benchmark: Any) -> None:
    first = row(a={"m": 0.5, "n": 0.5}, b={"m": 0.8}, c={})
    second = row(a={"m": 0.6, "n": 0.9}, b={"m": 0.7, "n": 1.0}, c={"m": 0.1})
    again = row(a={"m": 0.8, "n": 0.9}, b={"m": 0.7}, c={})
    found = benchmark("timed").paired([(first, second), (first, again)])
    mean, low, high, cases = found["m"]
    assert (mean, cases) == (pytest.approx((0.2 - 0.1) / 2), 2)
    # two cases: their mean, or either of them drawn twice
    assert (low, high) == (pytest.approx(-0.1), pytest.approx(0.2))
    assert found["n"][0] == found["n"][1] == pytest.approx(0.4)
    assert found[""][0] == pytest.approx(((0.25 + 0.35) / 2 - 0.1) / 2)


def test_steps_follow_from_a_short_run(benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timed = benchmark("timed")
    # half a second a step from the first step's end on, and 7 seconds whatever the length
    monkeypatch.setattr(timed.Training, "fit", lambda self, steps: timed.Took(0.5, 7.0 + 0.5 * (steps - 1)))
    training = timed.Training(tmp_path / "config.yaml", tmp_path / "run", {})
    assert training.steps_in(107.0) == 201
    assert training.steps_in(1.0) == 2


def test_a_step_is_timed_by_the_mean_without_what_is_none(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed, given = benchmark("timed"), {}
    # a look at the heads in the third step, and the end of the run
    ticks = iter([10.0, 11.0, 13.0, 33.0, 34.0, 36.0, 50.0])
    monkeypatch.setitem(timed.CLOCKS, "processor", lambda: next(ticks))

    def train(config: Path, **options: Any) -> None:
        given.update(options)
        for step in range(6):
            options["progress"]("train", step, 6)

    monkeypatch.setattr(timed.medmtl, "train", train)
    took = timed.Training(tmp_path / "config.yaml", tmp_path / "run", {"plan.workers": 3}).fit(steps=6)
    assert took == (1.5, 40.0)
    assert given["overrides"] == {"plan.workers": 0, "training.steps": 6}


def test_rows_are_read_as_they_were_written(benchmark: Any, tmp_path: Path) -> None:
    timed = benchmark("timed")
    assert timed.read_rows(tmp_path / "rows.jsonl") == []
    for number in range(2):
        timed.add_row(tmp_path / "rows.jsonl", {"number": number})
    assert timed.read_rows(tmp_path / "rows.jsonl") == [{"number": 0}, {"number": 1}]


@pytest.mark.parametrize("seed", range(8))
def test_the_script_counts_dice_as_the_package_does(benchmark: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, truth = rng.integers(0, 3, (2, 4, 5, 3))
    # each label empty in neither, one or both of the masks
    for mask, emptied in ((found, seed & 1), (truth, seed & 2), (found, seed & 4), (truth, seed & 4)):
        if emptied:
            mask[mask == (2 if seed & 4 else 1)] = 0
    options = SegmentationOptions(kind="segmentation", column="x", labels={"one": 1, "two": 2})
    theirs = mask_scores(found, truth, (1, 1, 1), {"one": (1,), "two": (2,)}, (), options)["dice"]
    assert benchmark("script_scores").mask_dice(found, truth, 2) == pytest.approx(theirs)


def test_empty_masks_have_no_dice_and_a_missed_label_has_0(benchmark: Any) -> None:
    mask_dice = benchmark("script_scores").mask_dice
    empty, full = np.zeros((2, 2, 2), int), np.ones((2, 2, 2), int)
    assert mask_dice(empty, empty, 2) is None
    assert mask_dice(empty, full, 2) == 0


@LOADS
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1)])
@pytest.mark.parametrize("finer", [1, 2])
def test_the_script_scores_on_the_grid_of_the_label_file(
    benchmark: Any, tmp_path: Path, flips: tuple[int, int, int], finer: int
) -> None:
    truth = np.zeros((12, 8, 6), np.uint8)
    truth[1:7, 2:4, 2:] = 2
    affine = np.diag([2.0 * flips[0], 2.0 * flips[1], 2.0, 1.0])
    affine[:3, 3] = (5, -3, 11)
    nib.save(nib.Nifti1Image(truth, affine), tmp_path / "label.nii.gz")
    # the same labels on a grid that runs right, front, top; each voxel's centre is that of the finer one's middle
    right = truth[:: flips[0], :: flips[1]]
    grid = Grid(truth.shape, affine)
    low = grid.affine @ [0 if flips[0] > 0 else 11, 0 if flips[1] > 0 else 7, 0, 1]
    held = np.diag([2.0 / finer] * 3 + [1.0])
    held[:3, 3] = low[:3] - (1 - 1 / finer)
    fine = right.repeat(finer, 0).repeat(finer, 1).repeat(finer, 2)
    probability = torch.nn.functional.one_hot(torch.from_numpy(fine.astype(np.int64)), 3).movedim(-1, 0).float()
    found, reference = benchmark("script_scores").NativeLabels()(
        probability, torch.from_numpy(held), tmp_path / "label.nii.gz"
    )
    assert np.array_equal(reference, truth)
    assert np.array_equal(found, truth)


@LOADS
@pytest.mark.slow
@pytest.mark.parametrize("name", COHORTS)
def test_the_script_trains_and_scores_every_task(benchmark: Any, name: str, tmp_path: Path) -> None:
    script = benchmark("script")
    config = ROOT / "configs" / f"{name}.yaml"
    table = write_stand_in(config, tmp_path)
    study = script.STUDIES[name]
    recipe = replace(study.recipe, shape=(32, 32, 16), filters=tuple(4 for _ in study.strides), batch=2, average=0.9)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answer = script.run(study, recipe, tmp_path, rows[:8], rows[8:], seconds=4.0, seed=0, threads=1, clock="processor")
    assert answer.steps >= 1
    assert list(answer.scores) == [*study.masks, *study.classes, *study.ranges]
    assert all(0 <= value <= 1 for own in answer.dice.values() for value in own.values())


@pytest.mark.parametrize("name", COHORTS)
def test_every_factor_of_the_recipe_study_is_a_configuration(benchmark: Any, name: str, tmp_path: Path) -> None:
    recipe = benchmark("recipe")
    given = argparse.Namespace(config=ROOT / "configs" / f"{name}.yaml", table=tmp_path / "cohort.csv")
    default = recipe.resolved(given, {})
    for overrides in {**recipe.FACTORS, **recipe.OF_COHORT[name]}.values():
        keys = recipe.expanded(default, overrides)
        assert not any(group in key for key in keys for group in ("MASK", "CLASS", "CASE"))
        # a factor may be what this configuration has already; then it has to be one of its keys
        same = recipe.resolved(given, keys) == default
        assert not same or set(keys) <= {"training.head_gradient"}


def test_factors_take_turns_on_the_folds_beside_their_default(benchmark: Any) -> None:
    recipe = benchmark("recipe")
    names = ["default", "a", "b", "c"]
    screen = argparse.Namespace(confirm=None, only=None, folds=[1, 2], seeds=3)
    runs = list(recipe.wanted(screen, names))
    assert [(name, fold) for name, fold, _ in runs if name != "default"] == [("a", 1), ("b", 2), ("c", 1)]
    assert all(
        runs.index(("default", fold, 0)) < runs.index((name, fold, 0)) for name, fold, _ in runs if name != "default"
    )
    screen.only = ["b"]
    assert ("b", 2, 0) in list(recipe.wanted(screen, names))
    screen.confirm = ["a+c"]
    assert len(set(recipe.wanted(screen, names))) == 2 * 2 * 3
    screen.confirm = ["a+x"]
    with pytest.raises(SystemExit, match="no factor 'x'"):
        list(recipe.wanted(screen, names))


def test_a_factor_that_fails_is_a_row_and_one_that_was_stopped_is_none(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = benchmark("recipe")
    given = argparse.Namespace(config=Path("x.yaml"), table=tmp_path / "c.csv", out=tmp_path, folds=[1], minutes=1.0)

    def end_with(error: Exception) -> Any:
        def steps_in(*_: Any) -> int:
            raise error

        monkeypatch.setattr(recipe.Training, "steps_in", steps_in)
        return recipe.run(given, {}, 1, 0, [])

    assert end_with(NumericError("the loss is not finite"))["failed"] == "the loss is not finite"
    with pytest.raises(InterruptedRun):
        end_with(InterruptedRun("stopped"))


def scored(dice: float, **key: Any) -> dict[str, Any]:
    held = {"steps": 9, "seconds": 1.0, "scores": {"m": dice, "c": None}, "dice": {"x": {"m": dice}, "y": {"m": dice}}}
    return {**held, **key}


def test_the_screening_stands_beside_the_default_of_its_own_fold(benchmark: Any) -> None:
    rows = [
        scored(0.5, factor="default", fold=1, seed=0),
        scored(0.6, factor="default", fold=2, seed=0),
        scored(0.7, factor="a", fold=2, seed=0),
        {"factor": "b", "fold": 1, "seed": 0, "steps": 0, "seconds": 0.0, "failed": "the loss is not finite"},
    ]
    text = benchmark("recipe").screened(rows, argparse.Namespace(config=Path("x.yaml"), minutes=3))
    assert "| a | 2 | 9 | 0.700 | none | +0.100 | none | +0.1000 (+0.1000 to +0.1000) |" in text.splitlines()
    assert "- b: the loss is not finite" in text.splitlines()


def test_the_package_is_compared_with_the_script_and_not_the_other_way(benchmark: Any) -> None:
    rows = [scored(0.7, arm="medmtl", fold=0, seed=0), scored(0.5, arm="script", fold=0, seed=0)]
    given = argparse.Namespace(minutes=1, script_minutes=2, clock="processor", threads=1)
    text = benchmark("equal_minutes").tables(rows, given)
    assert "| mean of the masks | +0.2000 (+0.2000 to +0.2000) | 2 |" in text.splitlines()
    assert "1 minutes by the processor clock, the script 2" in text


def test_later_runs_take_as_many_steps_as_earlier_ones_had_time_for(benchmark: Any) -> None:
    steps_by = benchmark("equal_minutes").steps_by
    script = scored(0.5, arm="script", fold=0, seed=0, steps=10_000)
    slow = scored(0.5, arm="medmtl", fold=0, seed=0, steps=100, seconds=70.0)
    assert steps_by([script], 60) is None
    assert steps_by([script, slow], 60) == 86
    assert steps_by([slow, slow, {**slow, "seconds": 50.0}], 60) == 86


def test_pairs_are_shown_from_the_rows_that_they_write(benchmark: Any) -> None:
    pairs = benchmark("pairs")
    rows = [
        {"pair": ["hard", "equal"], "seed": seed, "steps": 9, "scores": {"m": {"value": value, "ci95": [0.1, 0.9]}}}
        for seed, value in enumerate((0.4, 0.6, 0.5))
    ]
    lines = pairs.tables(rows, argparse.Namespace(minutes=3, fold=3)).splitlines()
    assert "| hard | equal | 9 | 0.500 (0.400 to 0.600) |" in lines
    assert "| hard | equal | 1 | 0.600 (0.100 to 0.900) |" in lines


def test_a_confirmation_pairs_fold_with_fold_and_seed_with_seed(benchmark: Any) -> None:
    rows = [scored(0.5 + 0.1 * seed, factor="default", fold=1, seed=seed) for seed in (0, 1)]
    rows += [scored(0.55 + 0.1 * seed, factor="a", fold=1, seed=seed) for seed in (0, 1, 2)]
    text = benchmark("recipe").confirmed(rows, argparse.Namespace(config=Path("x.yaml"), minutes=3))
    # the run without a default beside it counts in the median alone
    assert "| a | 3 | 9 | 0.650 (0.550 to 0.750) | none | +0.0500 (+0.0500 to +0.0500) |" in text.splitlines()


def test_a_measurement_that_is_there_is_not_made_again(benchmark: Any, tmp_path: Path) -> None:
    made = []

    def measure(arm: str, number: int) -> dict[str, Any]:
        if number == 1 and len(made) == 1:
            raise SystemExit("stopped")
        made.append(number)
        return {"seconds": float(number)}

    measured, file = benchmark("calls").measured, tmp_path / "rows.jsonl"
    wanted = [{"arm": "a", "number": number} for number in range(2)]
    with pytest.raises(SystemExit):
        measured(file, wanted, measure)
    made.append(-1)
    rows = measured(file, wanted, measure)
    assert made == [0, -1, 1]
    assert rows == [{"arm": "a", "number": number, "seconds": float(number)} for number in range(2)]
    assert measured(file, wanted, measure) == rows
    assert len(made) == 3


PROGRAM = """
import json, subprocess, sys, time
request = json.loads(sys.argv[1])
if "fail" in request:
    sys.exit("it fell")
child = subprocess.Popen([sys.executable, "-c", "held = bytearray(200_000_000); import time; time.sleep(2)"])
child.wait()
open(sys.argv[2], "w").write(json.dumps({"twice": 2 * request["number"]}))
"""


def test_a_process_answers_and_its_children_s_memory_is_seen(benchmark: Any, tmp_path: Path) -> None:
    calls = benchmark("calls")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = calls.call([sys.executable, program], {"number": 21}, tmp_path / "logs" / "one.log")
    assert found["twice"] == 42
    assert found["wall"] > 2
    assert 200e6 < found["tree_bytes"] < 400e6
    with pytest.raises(SystemExit, match=r"ended with 1; .*two\.log ends:\nit fell"):
        calls.call([sys.executable, program], {"fail": True}, tmp_path / "logs" / "two.log")


def test_the_bare_network_s_step_has_the_gradients_of_the_mask_alone(benchmark: Any, trained_run: Path) -> None:
    timed, bare = (open_session(RunFolder.open(trained_run)) for _ in range(2))
    batch = timed.training[0]
    ((name, view),) = batch.views.items()
    assert view.present["lesion"].all()
    nobody = {task: torch.zeros_like(present) for task, present in view.present.items()}
    alone = replace(batch, views={name: replace(view, present=nobody | {"lesion": view.present["lesion"]})})

    train_step(timed.learner, alone, 0.0)
    benchmark("steps").bare(bare, 1)()

    ours, theirs = (gradients(session.learner.model) for session in (timed, bare))
    assert set(ours) == set(theirs)
    # a training's are clipped, each part's by its own norm
    for parameter, found in theirs.items():
        torch.testing.assert_close(found / found.norm(), ours[parameter] / ours[parameter].norm(), rtol=1e-3, atol=1e-4)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_masks_of_two_precisions_are_compared_label_by_label(benchmark: Any) -> None:
    one, other = np.array([[0, 1, 1], [2, 2, 0]]), np.array([[0, 1, 0], [2, 2, 3]])
    assert benchmark("precision").dice_of(one, other) == [pytest.approx(2 / 3), 1.0, 0.0]
    assert benchmark("precision").dice_of(np.zeros(3), np.zeros(3)) == []
