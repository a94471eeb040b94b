"""Mask-guided pooling from the configuration to a prediction: trained, resumed, judged, evaluated, and asked."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medmtl import api
from medmtl.run_folder import RunFolder
from medmtl.training import collapse
from medmtl.training.session import open_session
from tests.conftest import TINY
from tests.inference.test_forward import PLAN, activations
from tests.networks.contract import FLAT
from tests.stopping import resumed_copy
from tests.test_model_guidance import make, tasks_of
from tests.weights import weights_sha256

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def config(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cohort, whose case tasks pool under the lesion, which is declared last."""
    folder = tmp_path_factory.mktemp("guided") / "cohort"
    shutil.copytree(tiny_cohort.parent, folder)
    document = yaml.safe_load(tiny_cohort.read_text(encoding="utf-8"))
    tasks = document["tasks"]
    tasks["lesion"] = tasks.pop("lesion")
    tasks["malignancy"] |= {"guided_by": "lesion", "pooling": "attention"}
    tasks["risk"] |= {"guided_by": "lesion", "pooling": "gem"}
    path = folder / "guided.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    return api.train(config, config.parents[1] / "run", device="cpu", overrides=TINY)


def test_every_task_learns_and_what_is_learned_is_finite(run: Path) -> None:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = [set(record["losses"]) for record in records if "losses" in record]
    assert set().union(*seen) == {"lesion", "malignancy", "risk"}
    state = open_session(RunFolder.open(run)).learner.model.state_dict()
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert {"heads_risk.pools.0.raw", "heads_malignancy.pools.2.score.weight"} <= state.keys()


@pytest.mark.covers("P07")
def test_a_resumed_run_ends_as_one_that_was_not_stopped(run: Path, config: Path) -> None:
    place = resumed_copy(run, config, config.parents[1] / "stopped")
    assert weights_sha256(place) == weights_sha256(run)


def test_it_is_evaluated_reported_and_asked_for_one_case(run: Path, config: Path, tmp_path: Path) -> None:
    api.evaluate(run, device="cpu")
    written = json.loads((run / "evaluation" / "val" / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    assert set(written) == {"lesion", "malignancy", "risk"}
    api.report(run)
    table = api.predict(run, [config.parent / "images" / "case_003.nii.gz"], tmp_path / "out")
    with table.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert 0 <= float(row["risk"]) <= 100
    assert row["malignancy"] in ("benign", "malignant")


def test_the_collapse_check_reads_the_mask_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []

    def seen(predicted: Any, target: Any, features_NF: Any, **told: Any) -> dict[str, Any]:
        widths.append(features_NF.shape[1])
        assert np.isfinite(features_NF).all() and np.isfinite(predicted).all()
        return {}

    monkeypatch.setattr(collapse, "MIN_CASES", 1)
    monkeypatch.setattr(collapse, "verdict", seen)
    session = open_session(RunFolder.open(run))
    assert set(collapse.collapse_check(session)) == {"malignancy", "risk"}
    channels = session.learner.model.sharing.spec["risk"].channels
    assert widths == [3 * sum(channels) + 1] * 2


@pytest.mark.parametrize("view", ["case", "patch"])
def test_a_case_larger_than_a_window_is_guided_by_the_windows_mask(view: Any) -> None:
    model, tasks = make().eval(), tasks_of()
    plan = replace(PLAN, view=view, shape=(16, 24, 8), network=FLAT)
    image_CDHW = torch.randn(2, 24, 24, 8, generator=torch.Generator().manual_seed(0))
    found = activations(model, tasks, plan, image_CDHW, overlap=0.5)
    starts = (4,) if view == "case" else (0, 8)
    with torch.no_grad():
        each = [model(image_CDHW[None, :, start : start + 16], ["grade"])["grade"].softmax(1)[0] for start in starts]
    torch.testing.assert_close(found["grade"], torch.stack(each).mean(0))
    assert found["organ"].shape == (2, 24, 24, 8)
