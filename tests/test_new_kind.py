"""A kind of task that medmtl does not know: one file, registered, and everything works with it."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from sklearn.metrics import mean_poisson_deviance

import medmtl
from medmtl import tasks
from medmtl.cli import main
from medmtl.errors import CohortError, ConfigError
from medmtl.tasks.base import CaseTask
from medmtl.tasks.learning import LossFault, Samples
from tests.conftest import TINY
from tests.kinds_fixture import Count, deviance
from tests.stopping import train_until
from tests.tasks.contract import CaseTaskContract

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(autouse=True)
def registered() -> Iterator[pytest.MonkeyPatch]:
    """``Count`` is known while a test runs, and not afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "kinds", copy.deepcopy(tasks.kinds))
        medmtl.register(Count)
        yield patch
    assert "count" not in tasks.kinds.names()


@pytest.fixture
def config(tiny_cohort: Path, tmp_path: Path) -> Path:
    """The tiny cohort with a count per case and without its regression; two cases are not labelled."""
    with (tiny_cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        row |= {column: str(tiny_cohort.parent / row[column]) for column in ("image", "lesion") if row[column]}
        row["nodules"] = "" if index in (4, 9) else str(index % 5)
    with (tmp_path / "counts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    document = yaml.safe_load(tiny_cohort.read_text())
    document["cohort"] |= {"table": "counts.csv", "roots": [str(tiny_cohort.parent)]}
    document["tasks"]["nodules"] = {"kind": "count", "column": "nodules"}
    del document["tasks"]["risk"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "config.yaml"


class TestCount(CaseTaskContract):
    options: ClassVar[Mapping[str, Any]] = {"kind": "count", "column": "nodules"}
    truths: ClassVar[Sequence[Any]] = [0, 3, 1, 7]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"column": 3}, "string"),
        ({"depth": 1}, "depth"),
    )
    primary = "mae"

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        return torch.tensor([float(truth)])


def test_the_deviance_is_that_of_scikit_learn() -> None:
    found = deviance(torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.0, 2.0, 9.0])).mean()
    means = torch.tensor([0.3, -1.0, 2.0]).exp().numpy()
    assert float(found) == pytest.approx(mean_poisson_deviance([0, 2, 9], means), rel=1e-5)


def test_it_trains_resumes_evaluates_reports_and_predicts(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train_until(3, config, run, TINY, monkeypatch)
    medmtl.train(config, run, device="cpu", overrides=TINY, resume=True)
    assert (run / "checkpoints" / "last").read_text().strip() == "step-000006"
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [record["losses"] for record in records if "losses" in record]
    assert any("nodules" in found for found in losses)

    scores = medmtl.evaluate(run, device="cpu")["val"]
    written = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["tasks"]["nodules"]
    assert (written["kind"], written["primary"]) == ("count", "mae")
    assert written["labelled"] == len(scores.cases["nodules"])
    errors = [abs(case.truth - case.result.cells("x")["x"]) for case in scores.cases["nodules"]]
    assert written["metrics"]["mae"]["value"] == pytest.approx(sum(errors) / len(errors))
    page = medmtl.report(run).read_text()
    assert "nodules: expected count" in page

    found = medmtl.load(run, device="cpu").predict(next(iter(scores.images.values())))
    (row,) = csv.DictReader(found.save(tmp_path / "out").read_text(encoding="utf-8").splitlines())
    assert float(row["nodules"]) == pytest.approx(found["nodules"].cells("n")["n"], rel=1e-5)
    assert float(row["nodules"]) > 0


def test_it_is_listed_and_its_cells_are_checked(config: Path) -> None:
    listed = {kind["name"]: kind for kind in medmtl.kinds()["tasks"]}
    assert "column" in str(listed["count"]["options"])
    table = config.parent / "counts.csv"
    table.write_text(table.read_text().replace(",0\n", ",some\n", 1))
    found = [finding for finding in medmtl.check(config) if finding.severity == "reject"]
    assert [(finding.code, finding.column, finding.found) for finding in found] == [("B119", "nodules", "some")]
    with pytest.raises(CohortError, match="B119"):
        medmtl.train(config, config.parent / "run", device="cpu", overrides=TINY)


def test_a_run_of_a_kind_that_is_not_registered_is_refused_by_name(
    config: Path, tmp_path: Path, registered: pytest.MonkeyPatch
) -> None:
    overrides = {**TINY, "training.steps": 1}
    run = medmtl.train(config, tmp_path / "run", device="cpu", overrides=overrides)
    registered.undo()
    for use in (
        lambda: medmtl.load(run, device="cpu"),
        lambda: medmtl.evaluate(run, device="cpu"),
        lambda: medmtl.train(config, tmp_path / "other", device="cpu", overrides=overrides),
    ):
        with pytest.raises(ConfigError, match=r"tasks\.nodules\.kind: unknown tasks kind 'count'"):
            use()
    registered.setattr(tasks, "kinds", copy.deepcopy(tasks.kinds))
    medmtl.register(Count)
    medmtl.load(run, device="cpu")


class Averaged(Count):
    """A count whose loss forgets that a batch has several samples."""

    kind = "averaged"

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().loss(output, target).mean()


def test_a_loss_of_another_shape_is_a_fault_of_the_users_class(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    medmtl.register(Averaged)
    pairs = [f"{key}={value}" for key, value in {**TINY, "tasks.nodules.kind": "averaged"}.items()]
    words = ["train", str(config), "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    assert main([*words, *(word for pair in pairs for word in ("--set", pair))]) == 8
    said = capsys.readouterr().err
    assert "error: tasks.nodules (kind averaged): loss() must return one loss per sample, shape (B,) = (2,)" in said
    assert "found shape (); correct its class" in said


@pytest.mark.parametrize(("returned", "found"), [(torch.ones(2, 1), "shape (2, 1)"), (1.0, "float")])
def test_only_one_number_per_sample_is_a_loss(returned: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Count("nodules", Count.Options(kind="count", column="nodules"), {"loss_scale": 1.0})
    monkeypatch.setattr(Count, "loss", lambda *_: returned)
    samples = Samples(("a", "b"), 0, 1, remember=False)
    with pytest.raises(LossFault, match=f"one loss per sample.*, found {re.escape(found)}$"):
        task.batch_loss(torch.zeros(2, 1), torch.zeros(2), torch.tensor([True, True]), samples)
