"""A survival task from the table to the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lifelines.utils import concordance_index

import medmtl
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("undrawn")

OVERRIDES = {**TINY, "training.steps": 2, "split.folds": 2}


@pytest.fixture(scope="module")
def config(tiny_cohort: Path) -> Path:
    """The tiny cohort with a mask and a survival."""
    document = yaml.safe_load(tiny_cohort.read_text())
    outcome = {"kind": "survival", "time": "time", "event": "event", "horizon": 1095}
    document["tasks"] = {"lesion": document["tasks"]["lesion"], "outcome": outcome}
    path = tiny_cohort.parent / "survival.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both folds of it."""
    return medmtl.train(
        config, tmp_path_factory.mktemp("survival") / "run", fold="all", device="cpu", overrides=OVERRIDES
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folds_are_scored_together_and_each_with_its_own_censoring(run: Path, config: Path) -> None:
    scores = medmtl.evaluate(run, device="cpu")["val"]
    written = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["tasks"]["outcome"]
    assert (written["kind"], written["primary"], written["labelled"]) == ("survival", "c_index", 11)
    assert list(written["metrics"])[:5] == ["c_index", "c_index_uno", "brier_integrated", "skill", "auc_1095"]

    cases = scores.cases["outcome"]
    right = pairs = 0.0
    for fold in (0, 1):
        own = [case for case in cases if case.fold == fold]
        time, event = [case.truth.time for case in own], [case.truth.event for case in own]
        count = sum(
            e and (t < u or (t == u and not f))
            for t, e in zip(time, event, strict=True)
            for u, f in zip(time, event, strict=True)
        )
        risks: list[Any] = [case.result.cells("x")["x"] for case in own]
        right += count * concordance_index(time, [-risk for risk in risks], event)
        pairs += count
    assert written["metrics"]["c_index"]["value"] == pytest.approx(right / pairs)
    ends = {
        number: json.loads((run / f"fold-{number}" / "plan.json").read_text())["tasks"]["outcome"]["followed_to"]
        for number in (0, 1)
    }
    assert {case.fold: case.scores["followed_to"] for case in cases} == ends

    table = {row["case_id"]: row for row in rows(config.parent / "cohort.csv")}
    for row in rows(run / "evaluation" / "val" / "cases.csv"):
        source = table[row["case_id"]]
        assert (row["outcome_true"], row["outcome_true_event"]) == (source["time"], source["event"])
        assert (row["outcome/brier_integrated"] == "") == (source["time"] == "")
    page = medmtl.report(run).read_text()
    assert "outcome: halves by predicted risk" in page
    assert "outcome: halves by predicted risk" not in medmtl.report(run, share=True).read_text()


def test_folds_answer_by_the_average_of_their_curves(run: Path, config: Path, tmp_path: Path) -> None:
    (case, *_) = rows(config.parent / "cohort.csv")
    image = {"image": config.parent / case["image"]}
    together = medmtl.load(run, device="cpu").predict(image)
    apart = [medmtl.load(run / f"fold-{number}", device="cpu").predict(image)["outcome"] for number in (0, 1)]
    assert together["outcome"].survival == pytest.approx(sum(one.survival for one in apart) / 2, rel=1e-5)
    assert together["outcome"].risk == pytest.approx(sum(one.risk for one in apart) / 2, rel=1e-5)
    (row,) = rows(together.save(tmp_path / "out"))
    assert [name for name in row if name.startswith("outcome")] == ["outcome", "outcome_median_time", "outcome_s_1095"]
    assert float(row["outcome"]) == pytest.approx(together["outcome"].risk, rel=1e-5)


def test_the_same_cohort_elsewhere_is_scored_by_the_same_horizon(run: Path, config: Path, tmp_path: Path) -> None:
    found = medmtl.evaluate(run / "fold-0", config=config, allow_overlap=True, out=tmp_path / "out", device="cpu")
    assert found["all"].metrics["tasks"]["outcome"]["labelled"] == 11
    other = config.with_name("other.yaml")
    other.write_text(config.read_text().replace("1095", "365"))
    with pytest.raises(medmtl.MedmtlError, match="its horizon is 365, and the model's is 1095"):
        medmtl.evaluate(run / "fold-0", config=other, allow_overlap=True, device="cpu")


@pytest.mark.parametrize(
    ("column", "cell", "code"),
    [
        pytest.param("time", "2020-02-30", "B123", marks=pytest.mark.covers("B123")),
        pytest.param("event", "yes", "B124", marks=pytest.mark.covers("B124")),
        pytest.param("event", "", "B127", marks=pytest.mark.covers("B127")),
        pytest.param("time", "9999", "B128", marks=pytest.mark.covers("B128")),
    ],
)
def test_a_bad_cell_is_one_finding_in_its_row(config: Path, tmp_path: Path, column: str, cell: str, code: str) -> None:
    found = checked(config, tmp_path, {2: {column: cell}}, max_time=5000)
    assert [(f.code, f.column, f.row, f.found) for f in found if f.severity == "reject"] == [(code, column, 4, cell)]


@pytest.mark.covers("B125")
def test_a_cohort_without_an_event_is_refused_once(config: Path, tmp_path: Path) -> None:
    found = checked(config, tmp_path, {index: {"event": "0"} for index in range(12)})
    assert [(f.code, f.key) for f in found if f.severity == "reject"] == [("B125", "tasks.outcome")]


@pytest.mark.covers("B126")
def test_a_cohort_without_a_censored_case_is_warned_of(config: Path, tmp_path: Path) -> None:
    found = checked(config, tmp_path, {index: {"event": "1"} for index in range(12)})
    assert not any(f.severity == "reject" for f in found)
    assert [(f.code, f.column) for f in found if f.code == "B126"] == [("B126", "event")]


@pytest.mark.covers("B129")
def test_the_time_is_no_input_too(config: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(config.read_text())
    document["cohort"]["channels"]["image"] = "time"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(medmtl.MedmtlError, match=r"its column 'time' is also the channel 'image'") as caught:
        medmtl.check(tmp_path / "config.yaml")
    assert "B129" in str(caught.value)


def checked(config: Path, folder: Path, changes: dict[int, dict[str, str]], **options: Any) -> list[Any]:
    """Findings of the cohort with other cells where it has values."""
    table = rows(config.parent / "cohort.csv")
    for index, row in enumerate(table):
        row |= {column: str(config.parent / row[column]) for column in ("image", "lesion") if row[column]}
        if row["time"]:
            row |= changes.get(index, {})
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    document = yaml.safe_load(config.read_text())
    document["cohort"] |= {"table": "cohort.csv", "roots": [str(config.parent)]}
    document["tasks"]["outcome"] |= options
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return list(medmtl.check(folder / "config.yaml"))
