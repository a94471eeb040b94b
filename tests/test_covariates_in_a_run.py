"""Covariates from the table to a prediction: trained, resumed, evaluated, and asked for one case."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.errors import InputError
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.stopping import resumed_copy
from tests.tables import predicted, rewrite
from tests.weights import weights_sha256

pytestmark = pytest.mark.usefixtures("undrawn")

CANARY = "8675309"
RISK = "{kind: regression, column: risk, unit: points, range: [0, 100]"


def declare(config: Path, name: str, covariates: str, tasks: str) -> Path:
    """The cohort's configuration with covariates and, instead of the risk, other tasks."""
    lines = config.read_text(encoding="utf-8").splitlines()
    (place,) = [index for index, line in enumerate(lines) if line.startswith("  risk:")]
    lines[place] = tasks
    (place,) = [index for index, line in enumerate(lines) if line.startswith("  missing:")]
    lines.insert(place, f"  covariates: {covariates}")
    path = config.with_name(name)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with an age and a ward; no age is a whole number, and one is missing."""
    folder = tmp_path_factory.mktemp("clinical") / "cohort"
    shutil.copytree(tiny_cohort.parent, folder)

    def change(number: int, row: dict[str, str]) -> None:
        row["age"] = "" if number == 11 else f"{row['age']}.{CANARY}"
        row["ward"] = ("east", "west")[number % 2]

    rewrite(folder / "cohort.csv", change)
    tasks = f"  risk: {RISK}, inputs: both}}\n  by_age: {RISK}, inputs: covariates}}"
    return declare(folder / "config.yaml", "clinical.yaml", "{age: number, ward: category}", tasks)


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    return api.train(config, config.parents[1] / "run", device="cpu", overrides=TINY)


@pytest.fixture(scope="module")
def model(run: Path) -> Any:
    return api.load(run, device="cpu")


def image(config: Path, number: int = 3) -> Path:
    return config.parent / "images" / f"case_{number:03}.nii.gz"


def test_covariates_that_no_task_reads_change_no_weight(config: Path, tmp_path: Path) -> None:
    weights = []
    for name, covariates in (("without", "{}"), ("with", "{age: number, ward: category}")):
        written = declare(config.with_name("config.yaml"), f"{name}.yaml", covariates, f"  risk: {RISK}}}")
        run = RunFolder.open(api.train(written, tmp_path / name, device="cpu", overrides=TINY))
        assert run.load_plan().covariates == ()
        weights.append(weights_sha256(run.path))
    assert weights[0] == weights[1]


def test_the_plan_holds_what_the_training_fold_says(run: Path) -> None:
    folder = RunFolder.open(run)
    age, ward = folder.load_plan().covariates
    train = set(folder.load_splits().folds[0].train)
    cells = [case.cells["age"] for case in api.load(run, "cpu").training_cohort() if case.case_id in train]
    known = [float(cell) for cell in cells if cell is not None]
    assert (age.name, age.kind, age.missing) == ("age", "number", len(cells) - len(known))
    assert (age.low, age.high) == (min(known), max(known))  # type: ignore[union-attr]
    assert (ward.name, ward.levels) == ("ward", ("east", "west"))  # type: ignore[union-attr]


@pytest.mark.covers("P07")
def test_a_resumed_run_ends_as_one_that_was_not_stopped(run: Path, config: Path) -> None:
    place = resumed_copy(run, config, config.parents[1] / "stopped")
    assert weights_sha256(place) == weights_sha256(run)


def test_every_way_to_ask_gives_one_answer(run: Path, model: Any, config: Path, tmp_path: Path) -> None:
    cell = next(case.cells["age"] for case in model.training_cohort() if case.case_id == "case_003")
    by_file = api.predict(run, [image(config)], tmp_path / "file", covariates={"age": cell, "ward": "west"})
    typed = ["--covariate", f"age={cell}", "--covariate", "ward=west", "--out", str(tmp_path / "typed"), "--quiet"]
    assert main(["predict", str(run), str(image(config)), *typed]) == 0
    asked = [
        by_file,
        tmp_path / "typed" / "predictions.csv",
        api.predict(run, [config], tmp_path / "config"),
        api.predict(run, [config.parent / "cohort.csv"], tmp_path / "table"),
        model.predict(
            {"image": image(config)}, covariates={"ward": "west", "age": float(cell)}, case_id="case_003"
        ).save(tmp_path / "python"),
    ]
    rows = [predicted(table)["case_003"] for table in asked]
    assert all(row == rows[0] for row in rows)
    assert rows[0]["outside_training"] == ""


def test_covariates_change_the_tasks_that_read_them(model: Any, config: Path) -> None:
    young, old = (
        model.predict({"image": image(config)}, covariates={"age": age, "ward": "west"}).activations for age in (40, 70)
    )
    assert young["risk"] != old["risk"] and young["by_age"] != old["by_age"]
    assert young["malignancy"] == old["malignancy"]


@pytest.mark.covers("B162")
@pytest.mark.parametrize(
    ("values", "outside"),
    [
        ({"age": 55, "ward": "west"}, ()),
        ({"age": 150, "ward": "west"}, ("covariate_age",)),
        ({"age": 55, "ward": None}, ("covariate_ward",)),
        ({"age": 55, "ward": "north"}, ("covariate_ward",)),
    ],
)
def test_what_training_did_not_hold_is_named(
    model: Any, config: Path, values: dict[str, Any], outside: tuple[str, ...]
) -> None:
    assert model.predict({"image": image(config)}, covariates=values).outside_training == outside


def test_an_unknown_level_counts_as_missing_and_is_told_once(
    run: Path, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = api.load(run, device="cpu")
    with caplog.at_level(logging.WARNING):
        found = [
            model.predict({"image": image(config)}, covariates={"age": 55, "ward": ward}).activations
            for ward in ("south", "south", None)
        ]
    assert found[0] == found[1] == found[2]
    assert [record.getMessage() for record in caplog.records] == [
        "[B162] covariate ward: 'south' was not learned in training and counts as missing"
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, r"\[B162\] the model wants the covariates age, ward; found none; give --covariate NAME=VALUE"),
        ({"age": 55}, "wants the covariates age, ward; found age"),
        ({"age": 55, "ward": "west", "sex": "F"}, "found age, ward, sex"),
        ({"age": "61,5", "ward": "west"}, r"\[B006\] covariate age: found '61,5'"),
        ({"age": float("nan"), "ward": "west"}, r"\[B119\] covariate age: found 'nan'"),
    ],
)
def test_what_is_given_for_a_case_must_be_the_models(
    model: Any, config: Path, values: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.predict({"image": image(config)}, covariates=values)


def test_a_model_without_covariates_takes_none(trained_run: Path, config: Path) -> None:
    with pytest.raises(InputError, match=r"\[B162\] the model reads no covariates; leave age away"):
        api.load(trained_run, device="cpu").predict({"image": image(config)}, covariates={"age": 61})


def test_several_cases_come_with_a_table(run: Path, config: Path, tmp_path: Path) -> None:
    values = {"age": 55, "ward": "west"}
    with pytest.raises(InputError, match="give several cases by a table"):
        api.predict(run, [image(config), image(config, 4)], tmp_path / "out", covariates=values)
    with pytest.raises(InputError, match="covariates are columns of a table"):
        api.predict(run, [config.parent / "cohort.csv"], tmp_path / "out", covariates=values)


def test_a_row_with_a_bad_cell_is_told_and_the_rest_is_predicted(run: Path, config: Path, tmp_path: Path) -> None:
    shutil.copytree(config.parent, tmp_path / "cohort")
    table = tmp_path / "cohort" / "cohort.csv"
    rewrite(table, lambda _, row: row.update(age="old" if row["case_id"] == "case_003" else row["age"]))
    with pytest.raises(
        InputError, match=r"1 of 12 cases were not predicted.*\[B119\] row 5, case case_003, column age"
    ):
        api.predict(run, [table], tmp_path / "out")
    assert len(predicted(tmp_path / "out" / "predictions.csv")) == 11


def test_another_cohort_must_declare_the_same_covariates(run: Path, config: Path, tmp_path: Path) -> None:
    api.evaluate(run, config=config, out=tmp_path / "external", allow_overlap=True, device="cpu")
    assert len(json.loads((tmp_path / "external" / "activations.json").read_text())) == 12
    for covariates, found in (("{age: number}", "nothing as"), ("{age: number, ward: number}", "a number as")):
        other = declare(config.with_name("config.yaml"), "other.yaml", covariates, f"  risk: {RISK}, inputs: both}}")
        message = f"other.yaml has {found} the covariate ward, and the model wants a category"
        with pytest.raises(InputError, match=message):
            api.evaluate(run, config=other, out=tmp_path / "evaluation", allow_overlap=True)
        with pytest.raises(InputError, match=message):
            api.predict(run, [other], tmp_path / "prediction")


@pytest.mark.covers("P19")
def test_no_cell_is_in_the_log_or_in_a_page_to_share(run: Path) -> None:
    api.evaluate(run, device="cpu")
    api.report(run, share=True)
    shared = [run / "log.jsonl", *(run / "evaluation" / "val").glob("*")]
    assert {"report.html", "metrics.json", "cases.csv"} <= {path.name for path in shared}
    assert all(CANARY.encode() not in path.read_bytes() for path in shared if path.is_file())
