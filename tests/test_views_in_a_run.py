"""Views of a case, from the configuration to the files that a user reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.data.loader import StepViews
from medmtl.run_folder import RunFolder
from medmtl.training.session import open_session
from tests.conftest import TINY
from tests.stopping import train_until_raised

pytestmark = pytest.mark.usefixtures("undrawn")

VIEWED: dict[str, Any] = {**TINY, "plan.shape": [16, 16, 16], "training.steps": 4}
KINDS: list[dict[str, Any]] = [
    {"views.kind": "two", "views.spacing": [2.0, 2.0, 2.0]},
    {"views.kind": "two", "views.spacing": [2.0, 2.0, 2.0], "views.share": False},
    {"views.kind": "lesion"},
    {"views.kind": "tiles", "views.tiles": 3},
    {"views.kind": "auto"},  # a set shape that cases do not fit is a patch's
]
NAMES = ["two", "own encoder", "lesion", "tiles", "planned"]


@pytest.fixture(scope="module", params=KINDS, ids=NAMES)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


@pytest.fixture(scope="module")
def run(kind: dict[str, Any], tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(tiny_cohort, tmp_path_factory.mktemp("views") / "run", device="cpu", overrides=VIEWED | kind)


def weights(run: Path) -> bytes:
    return (run / "checkpoints" / "step-000004" / "average.safetensors").read_bytes()


def test_each_task_has_a_loss_in_every_labelled_step_and_a_validation(run: Path) -> None:
    records = RunFolder.open(run).read_log()
    losses = [record["losses"] for record in records if "losses" in record]
    assert {name for record in losses for name in record} == {"lesion", "malignancy", "risk"}
    assert {name for record in records for name in record.get("validation", {})} == {"lesion", "malignancy", "risk"}


def test_a_step_has_the_samples_of_both_views(kind: dict[str, Any], run: Path) -> None:
    session = open_session(RunFolder.open(run))
    assert isinstance(session.training, StepViews)
    batch = session.training[0]
    patch, second = batch.views.values()
    view = session.plan.case_view
    assert view is not None
    assert list(patch.targets) == ["lesion"]
    assert list(second.targets) == ["malignancy", "risk"]
    assert tuple(patch.image_BCDHW.shape[2:]) == (16, 16, 16)
    assert len(second.image_BCDHW) == view.batch * view.tiles
    assert len(second.case_ids) == len(second.present["risk"]) == view.batch
    assert second.tiles == kind.get("views.tiles", 1)


def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    kind: dict[str, Any], run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    overrides = VIEWED | kind | {"plan.workers": 2}
    train_until_raised(3, tiny_cohort, tmp_path / "run", overrides)
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, resume=True)
    assert weights(tmp_path / "run") == weights(run)


def test_it_is_evaluated_reported_again_and_predicts(kind: dict[str, Any], run: Path, tiny_cohort: Path) -> None:
    api.evaluate(run, device="cpu")
    file = run / "evaluation" / "val" / "metrics.json"
    tasks = json.loads(file.read_text())["tasks"]
    assert tasks["risk"]["metrics"]["mae"]["value"] is not None
    windows = {name for name in tasks["risk"]["metrics"] if "window" in name}
    wanted = {"mae_reference_window", "mae_predicted_window"} if kind["views.kind"] == "lesion" else set()
    assert windows == wanted
    page = (run / "evaluation" / "val" / "report.html").read_text()
    assert ("so that finding it costs nothing" in page) is bool(wanted)
    api.report(run)
    assert (run / "evaluation" / "val" / "report.html").read_text() == page
    scans = sorted((tiny_cohort.parent / "images").iterdir())
    prediction = api.load(run, device="cpu").predict({"image": scans[0]})
    assert 0 <= prediction["risk"].value <= 100  # type: ignore[attr-defined]


def test_the_plan_says_what_the_view_shows(kind: dict[str, Any], run: Path) -> None:
    plan = RunFolder.open(run).load_plan()
    assert plan.case_view is not None
    told = plan.reasons["case_view"]
    if kind["views.kind"] == "auto":
        assert "a view of the whole case fits beside the patches" in told
        assert plan.case_view.preparation == plan.preparation
    else:
        assert told == "set in the configuration"
    assert "for malignancy, risk" in plan.reasons["case_view.shape"]
    assert plan.case_view.share is kind.get("views.share", True)


def test_case_tasks_alone_see_tiles(tiny_cohort: Path, tmp_path: Path) -> None:
    """No voxel task: the patches' view has nobody who sees it."""
    lines = tiny_cohort.read_text().splitlines(keepends=True)
    config = tiny_cohort.parent / "tiles.yaml"
    config.write_text("".join(line for line in lines if not line.startswith("  lesion:")))
    overrides = VIEWED | {"views.kind": "tiles", "training.steps": 2}
    run = api.train(config, tmp_path / "run", device="cpu", overrides=overrides)
    session = open_session(RunFolder.open(run))
    assert [dataset.view.kind for dataset in session.training.views] == ["tiles"]
    assert session.plan.case_view is not None
    assert session.plan.case_view.around is None
    assert api.evaluate(run, device="cpu")["val"].metrics["tasks"]["risk"]["metrics"]["mae"]["value"] is not None
