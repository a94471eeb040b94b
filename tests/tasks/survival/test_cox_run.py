"""Cox regression from the table to the report, and over a stop."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import medmtl
from medmtl import checkpoint
from medmtl.errors import ArtefactError
from medmtl.run_folder import RunFolder
from medmtl.tasks.survival import Survival
from medmtl.tasks.survival.cox import Cox
from medmtl.training import collapse, loop
from medmtl.training.commit import restore
from medmtl.training.finish import finish_tasks
from medmtl.training.session import Session, open_session
from medmtl.training.step import train_step
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records
from tests.stopping import train_until
from tests.training.test_session import rewrite

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def config(tiny_cohort: Path) -> Path:
    """The tiny cohort with a mask and a survival by Cox regression."""
    document = yaml.safe_load(tiny_cohort.read_text())
    outcome = {"kind": "survival", "time": "time", "event": "event", "horizon": 1095, "loss": "cox"}
    document["tasks"] = {"lesion": document["tasks"]["lesion"], "outcome": outcome}
    path = tiny_cohort.parent / "cox.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of it, more than an epoch."""
    return medmtl.train(config, tmp_path_factory.mktemp("cox") / "run", device="cpu", overrides=TINY)


def state(run: Path) -> dict[str, Any]:
    stored = checkpoint.load(run / "checkpoints")
    assert stored is not None
    remembered: dict[str, Any] = stored.state["tasks"]["outcome"]
    return remembered


def objective(session: Session) -> Cox:
    task = session.learner.tasks["outcome"]
    assert isinstance(task, Survival) and isinstance(task.objective, Cox)
    return task.objective


@pytest.mark.parametrize("last", [2, 3, 5])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    out = tmp_path / "run"
    train_until(last, config, out, TINY, monkeypatch)
    assert len(state(out)["bank"]) > 0
    with pytest.raises(
        ArtefactError, match=rf"stopped at step {last}, and tasks\.outcome can answer only after .*--res"
    ):
        medmtl.load(out, device="cpu")
    medmtl.train(config, out, device="cpu", overrides=TINY, resume=True)
    assert fingerprint(out) == fingerprint(run)
    assert records(out) == records(run)
    assert any("outcome" in record["validation"] for record in records(out) if "validation" in record)


def test_a_training_that_is_long_enough_to_judge_heads_early_leaves_it_out(
    run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EARLY_FROM", 6)
    monkeypatch.setattr(collapse, "MIN_CASES", 1)
    out = medmtl.train(config, tmp_path / "run", device="cpu", overrides=TINY)
    assert fingerprint(out) == fingerprint(run)
    assert [(r["step"], r["collapse"]["task"]) for r in records(out) if "collapse" in r] == [(6, "outcome")]


def test_it_evaluates_reports_and_predicts_like_hazards(run: Path, tmp_path: Path) -> None:
    scores = medmtl.evaluate(run, device="cpu")["val"]
    written = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["tasks"]["outcome"]
    assert (written["kind"], written["primary"]) == ("survival", "c_index")
    assert list(written["metrics"])[:5] == ["c_index", "c_index_uno", "brier_integrated", "skill", "auc_1095"]
    assert "outcome: halves by predicted risk" in medmtl.report(run).read_text()
    found = medmtl.load(run, device="cpu").predict(next(iter(scores.images.values())))
    (row,) = csv.DictReader(found.save(tmp_path / "out").read_text(encoding="utf-8").splitlines())
    assert [name for name in row if name.startswith("outcome")] == ["outcome", "outcome_median_time", "outcome_s_1095"]
    assert 0 < float(row["outcome_s_1095"]) < 1


def test_the_baseline_is_that_of_the_averaged_weights_on_the_whole_training_fold(run: Path) -> None:
    session = open_session(RunFolder.open(run))
    assert restore(session) == 6
    learner, stored = session.learner, objective(session).baseline
    assert stored is not None and learner.average is not None
    learner.model.load_weights(learner.average.tensors)
    learner.model.eval()
    risks, times, events = [], [], []
    cases = session.training.views[0].plain(len(session.training.views[0].cases))
    for index in range(len(cases)):
        (view,) = cases[index].views.values()
        if bool(view.present["outcome"]):
            with torch.inference_mode(), torch.autocast("cpu", enabled=session.plan.precision != "fp32"):
                risks.append(float(learner.model(view.image_BCDHW, ("outcome",), view.covariates_BN)["outcome"]))
            times.append(float(view.targets["outcome"][0, 0]))
            events.append(float(view.targets["outcome"][0, 1]))
    assert len(risks) > 4
    assert stored.centre == pytest.approx(np.mean(risks), abs=1e-6)
    at_risk = [sum(np.exp(r - np.mean(risks)) for r, u in zip(risks, times, strict=True) if u >= t) for t in times]
    for time in (200.0, 600.0, 1095.0):
        grown = sum(e / n for e, n, t in zip(events, at_risk, times, strict=True) if t <= time)
        assert stored.at(np.array([time]))[0] == pytest.approx(grown, rel=1e-5)


def test_the_pass_leaves_the_weights_in_training_and_is_left_out_where_nobody_asks(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(RunFolder.open(run))
    restore(session)
    before = {name: tensor.clone() for name, tensor in session.learner.model.state_dict().items()}
    stored = objective(session).baseline
    objective(session).baseline = None
    finish_tasks(session)
    assert objective(session).baseline == stored
    assert all(torch.equal(tensor, before[name]) for name, tensor in session.learner.model.state_dict().items())
    del session.learner.tasks["outcome"]  # type: ignore[attr-defined]
    monkeypatch.setattr(type(session.training), "plain", lambda *_: pytest.fail("a pass for nobody"))
    finish_tasks(session)


def test_a_run_that_trains_further_has_no_baseline_until_its_new_end(run: Path) -> None:
    session = open_session(RunFolder.open(run))
    first = restore(session)
    batch = next(b for step in range(99) if bool((b := session.training[step]).views["case"].present["outcome"].any()))
    train_step(session.learner, replace(batch, step=first), 1.0)
    assert not session.learner.tasks["outcome"].is_finished


def test_what_is_remembered_is_of_the_last_epoch_and_of_training_cases(run: Path) -> None:
    session = open_session(RunFolder.open(run))
    remembered = state(run)["bank"]
    assert {row[0] for row in remembered} <= {case.case_id for case in session.training.views[0].cases}
    assert len({row[0] for row in remembered}) == len(remembered)
    assert session.learner.epoch == -(-len(session.training.views[0].cases) // 2)
    assert all(5 - row[4] <= session.learner.epoch for row in remembered)


def without(state: dict[str, Any]) -> None:
    del state["tasks"]


def foreign(state: dict[str, Any]) -> None:
    state["tasks"] = {"other": state["tasks"]["outcome"]}


def torn(state: dict[str, Any]) -> None:
    state["tasks"]["outcome"]["bank"][0] = ["x"]


def listed(state: dict[str, Any]) -> None:
    state["tasks"] = []


@pytest.mark.covers("B155")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, "lacks tasks"),
        (foreign, "memory of the tasks"),
        (torn, "does not fit this run"),
        (listed, "does not fit this run"),
    ],
)
def test_a_memory_that_is_missing_or_another_task_s_is_refused(
    run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    session = open_session(RunFolder.open(run))
    restore(session)
    other = RunFolder(shutil.copytree(run, tmp_path / "run"))
    rewrite(other, change)
    with pytest.raises(ArtefactError, match=rf"^\[B155\] .*{words}"):
        restore(replace(session, run=other))


def test_a_kind_without_memory_leaves_no_trace_and_is_given_none(trained_run: Path) -> None:
    stored = checkpoint.load(trained_run / "checkpoints")
    assert stored is not None and "tasks" not in stored.state


def changed(config: Path, folder: Path, loss: str) -> Path:
    """The cohort with a second row for the patient of its first row that has an outcome, and one for another."""
    with (config.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {column: str(config.parent / row[column]) for column in ("image", "lesion") if row[column]}
    first, second, third = [row for row in rows if row["time"]][:3]
    second["patient_id"] = first["patient_id"]
    unlabelled = next(row for row in rows if not row["time"])
    unlabelled["patient_id"] = third["patient_id"]
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    document = yaml.safe_load(config.read_text())
    document["cohort"] |= {"table": "cohort.csv", "roots": [str(config.parent)]}
    document["tasks"]["outcome"]["loss"] = loss
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return folder / "config.yaml"


@pytest.mark.covers("B198")
@pytest.mark.parametrize(("loss", "severity"), [("cox", "reject"), ("hazards", "warn")])
def test_a_second_outcome_of_a_patient_is_told_in_its_row(
    config: Path, tmp_path: Path, loss: str, severity: str
) -> None:
    found = [finding for finding in medmtl.check(changed(config, tmp_path, loss)) if finding.code == "B198"]
    assert [(finding.severity, finding.column, finding.key) for finding in found] == [
        (severity, "time", "tasks.outcome")
    ]
    assert found[0].found is not None and found[0].found.endswith("is this patient's too")


@pytest.mark.covers("B198")
def test_a_cohort_that_is_only_scored_may_have_several_rows_of_a_patient(
    run: Path, config: Path, tmp_path: Path
) -> None:
    other = changed(config, tmp_path, "cox")
    found = medmtl.evaluate(run, config=other, allow_overlap=True, out=tmp_path / "out", device="cpu")
    assert found["all"].metrics["tasks"]["outcome"]["labelled"] == 11
