"""The kinds of case targets on one small cohort: trained, scored, reported, and predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

import medmtl
from medmtl.training import loop
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("undrawn")

TASKS = {
    "chest": {"kind": "multilabel", "findings": {"nodule": "nodule", "effusion": "effusion"}},
    "grade": {"kind": "ordinal", "column": "grade", "grades": ["low", "middle", "high"]},
    "risk": {"kind": "regression", "column": "risk", "range": [0, 100], "loss": "beta_nll"},
}


def with_targets(cohort: Path, folder: Path) -> Path:
    """The cohort with two findings and a grade per case, some of them missing; returns its configuration."""
    with (cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        row |= {column: str(cohort.parent / row[column]) for column in ("image", "lesion") if row[column]}
        row["nodule"] = "" if index in (4, 9) else str(index % 2)
        row["effusion"] = "" if index in (4, 7) else str(index // 2 % 2)
        row["grade"] = "" if index == 2 else ("low", "middle", "high")[index % 3]
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    document = yaml.safe_load(cohort.read_text())
    document["cohort"]["roots"] = [str(cohort.parent)]
    document["tasks"] = TASKS
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / "config.yaml"


def test_they_train_evaluate_report_and_predict(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EARLY_FROM", 3)  # heads are judged as in a training of some length
    config = with_targets(tiny_cohort, tmp_path)
    assert not [finding for finding in medmtl.check(config) if finding.severity == "reject"]
    run = medmtl.train(config, tmp_path / "run", device="cpu", overrides={**TINY, "training.steps": 3})
    scores = medmtl.evaluate(run, device="cpu")["val"]
    written = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["tasks"]
    assert {name: body["primary"] for name, body in written.items()} == {
        "chest": "auc",
        "grade": "kappa_quadratic",
        "risk": "mae",
    }
    assert {"auc/nodule", "auc/effusion"} <= written["chest"]["metrics"].keys()
    assert {"slope", "bias", "coverage_95"} <= written["risk"]["metrics"].keys()
    with (run / "evaluation" / "val" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = ["chest_nodule_true", "chest_effusion_true", "chest_nodule", "chest_effusion", "grade_true", "grade"]
    assert [column for column in rows[0] if column in columns] == columns
    assert {row["chest_nodule_true"] for row in rows} <= {"", "0", "1"}
    # the model's outputs have no names: the order of the findings must survive the run folder
    assert list(yaml.safe_load((run / "config.yaml").read_text())["tasks"]["chest"]["findings"]) == [
        "nodule",
        "effusion",
    ]
    page = medmtl.report(run).read_text()
    assert all(text in page for text in ("chest: ROC", "grade: ROC", "limits of agreement"))
    medmtl.report(run, share=True)

    found = medmtl.load(run, device="cpu").predict(next(iter(scores.images.values())))
    (row,) = csv.DictReader(found.save(tmp_path / "out").read_text(encoding="utf-8").splitlines())
    assert 0 < float(row["chest_nodule"]) < 1
    assert row["grade"] in ("low", "middle", "high")
    assert float(row["risk_lower"]) <= float(row["risk"]) <= float(row["risk_upper"])
    assert float(row["risk_sd"]) > 0
