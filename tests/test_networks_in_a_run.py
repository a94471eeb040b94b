"""Every kind of encoder, from the configuration to a prediction."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from medmtl import api, networks
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.stopping import train_until_raised

pytestmark = pytest.mark.usefixtures("undrawn")

# patches, and whole cases at another spacing, for which the encoder has norms of its own
VIEWED: dict[str, Any] = {
    **TINY,
    "plan.shape": [16, 16, 16],
    "training.steps": 4,
    "views.kind": "two",
    "views.spacing": [2.0, 2.0, 2.0],
}


@pytest.fixture(scope="module", params=networks.kinds.names())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(kind: str, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = {**VIEWED, "network.kind": kind}
    return api.train(tiny_cohort, tmp_path_factory.mktemp("networks") / "run", device="cpu", overrides=overrides)


LAST = Path("checkpoints") / "step-000004" / "model.safetensors"


def test_each_task_learns_and_is_validated(kind: str, run: Path) -> None:
    folder = RunFolder.open(run)
    assert folder.load_plan().network.kind == kind
    records = folder.read_log()
    losses = [record["losses"] for record in records if "losses" in record]
    assert {name for record in losses for name in record} == {"lesion", "malignancy", "risk"}
    assert all(math.isfinite(value) for record in losses for value in record.values())
    assert {name for record in records for name in record.get("validation", {})} == {"lesion", "malignancy", "risk"}


def test_the_second_view_trains_norms_of_its_own(run: Path) -> None:
    weights = load_file(run / LAST)
    pairs = {
        name: (tensor, weights[name.replace("second_weight", "weight")])
        for name, tensor in weights.items()
        if name.endswith("second_weight")
    }
    assert pairs
    assert not any(torch.equal(first, second) for first, second in pairs.values())
    assert all(second.isfinite().all() for second, _ in pairs.values())


def test_a_case_is_predicted(run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    image = tiny_cohort.parent / "images" / "case_000.nii.gz"
    table = api.predict(run, [image], tmp_path / "out", device="cpu")
    assert "masks/lesion/case_000.nii.gz" in table.read_text(encoding="utf-8")


def test_a_stopped_run_ends_as_one_that_was_not(kind: str, run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**VIEWED, "network.kind": kind}
    train_until_raised(3, tiny_cohort, tmp_path / "run", overrides)
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, resume=True)
    for name in (LAST, LAST.with_name("average.safetensors"), LAST.with_name("optimiser.safetensors")):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_a_run_on_an_nnunet_plan_needs_it_no_more(tiny_cohort: Path, tmp_path: Path) -> None:
    layout = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": {
            "features_per_stage": [4, 8],
            "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2]],
            "n_blocks_per_stage": [1, 2],
        },
    }
    plans = tmp_path / "plans.json"
    full = {
        "spacing": [2.0, 1.0, 1.0],
        "patch_size": [8, 16, 16],
        "batch_size": 2,
        "normalization_schemes": ["ZScoreNormalization"],
        "architecture": layout,
    }
    plans.write_text(json.dumps({"configurations": {"3d_fullres": full}}), encoding="utf-8")
    document = yaml.safe_load(tiny_cohort.read_text(encoding="utf-8"))
    document["cohort"] |= {"table": str(tiny_cohort.parent / document["cohort"]["table"])}
    document["tasks"] = {"lesion": document["tasks"]["lesion"]}
    document |= {
        "primary": "lesion",
        "network": {"kind": "resenc"},
        "plan": {"nnunet": "plans.json", "workers": 0, "threads": 1},
        "training": {"steps": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    run = api.train(tmp_path / "config.yaml", tmp_path / "run", device="cpu")
    plan = RunFolder.open(run).load_plan()
    assert (plan.preparation.spacing, plan.shape, plan.batch) == ((1.0, 1.0, 2.0), (16, 16, 8), 2)
    assert (plan.network.channels, plan.network.blocks_per_stage) == ((4, 8), (1, 2))
    api.train(tmp_path / "config.yaml", tmp_path / "run", device="cpu", resume=True)  # the same configuration
    plans.unlink()
    assert "lesion" in json.loads((api.evaluate(run, device="cpu")["val"].folder / "metrics.json").read_text())["tasks"]
