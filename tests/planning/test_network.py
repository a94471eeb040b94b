from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medmtl import api, sharing
from medmtl.build import build_tasks
from medmtl.device import Device
from medmtl.networks.cost import parameter_count
from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.encoder import Encoder
from medmtl.planning.network import output_count, plan_towers, towers_by_view
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.networks.contract import image
from tests.networks.test_cost import PLAIN
from tests.planning.cohorts import CPU, GPU, SMALL, configured, fingerprint, planned


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (CPU, "fp32"),
        (replace(CPU, bf16=True), "bf16"),
        (GPU, "bf16"),
        (replace(GPU, bf16=False), "fp16"),
    ],
)
def test_precision_follows_the_device(tmp_path: Path, device: Device, precision: str) -> None:
    plan = planned(configured(tmp_path), *map(fingerprint, SMALL), device=device)
    assert (plan.precision, plan.device) == (precision, device.kind)


@pytest.mark.parametrize(("kind", "precision"), [("equal", "fp16"), ("pcgrad", "fp32")])
def test_a_weighting_on_gradients_is_planned_without_a_scaler(tmp_path: Path, kind: str, precision: str) -> None:
    config = configured(tmp_path, weighting__kind=kind)
    plan = planned(config, *map(fingerprint, SMALL), device=replace(GPU, bf16=False))
    assert plan.precision == precision
    assert ("weighting.kind 'pcgrad'" in plan.reasons["precision"]) == (kind == "pcgrad")
    assert planned(config, *map(fingerprint, SMALL), device=GPU).precision == "bf16"


def test_a_set_precision_is_taken(tmp_path: Path) -> None:
    config = configured(tmp_path, plan__precision="fp32")
    assert planned(config, *map(fingerprint, SMALL), device=GPU).precision == "fp32"


@pytest.mark.parametrize(
    ("keys", "first", "widest"),
    [({}, 16, 128), ({"plan__width": 200}, 200, 200), ({"plan__max_width": 8}, 8, 8), ({"plan__width": 24}, 24, 128)],
)
def test_the_first_stage_has_the_width_that_is_set_and_no_stage_more_than_the_widest(
    tmp_path: Path, keys: dict[str, int], first: int, widest: int
) -> None:
    plan = planned(configured(tmp_path, plan__memory_gb=60, **keys), fingerprint((64, 64, 64)))
    assert plan.network.channels == tuple(min(first * 2**stage, widest) for stage in range(5))
    assert f"{first} channels, doubled per stage up to {widest}" in plan.reasons["network"]


def test_cases_too_small_to_be_halved_are_trained_on_and_predicted(tiny_cohort: Path, tmp_path: Path) -> None:
    coarse = {**TINY, "plan.spacing": [6, 6, 8], "training.steps": 2}
    run = api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=coarse)
    plan = RunFolder.open(run).load_plan()
    assert max(plan.shape) < 8
    assert (len(plan.network.channels), plan.network.levels) == (1, 1)
    image = tiny_cohort.parent / "images" / "case_000.nii.gz"
    table = api.predict(run, [image], tmp_path / "out", device="cpu")
    assert "masks/lesion/case_000.nii.gz" in table.read_text(encoding="utf-8")


@pytest.mark.parametrize(("decoder", "decoders"), [("shared", 1), ("per_task", 2)])
def test_decoders_and_outputs_are_those_of_the_voxel_tasks(tmp_path: Path, decoder: str, decoders: int) -> None:
    config = configured(
        tmp_path,
        network__kind="unet",
        network__decoder=decoder,
        tasks__organ={"kind": "segmentation", "column": "organ", "labels": {"liver": 1, "spleen": 2}},
    )
    towers = plan_towers(config, build_tasks(config), PLAIN)
    assert (towers.encoders, towers.decoders) == (1, decoders)
    assert output_count(build_tasks(config)) == 2 + 3


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", sharing.kinds.names())
def test_each_view_is_planned_with_what_its_samples_run(tmp_path: Path, kind: str, share: bool) -> None:
    """Counted on the network itself: the encoders and decoders that a pass for a view's tasks calls."""
    age = {"kind": "regression", "column": "age"}
    config = configured(tmp_path, sharing__kind=kind, tasks__age=age, views__share=share)
    tasks = build_tasks(config)
    second = ("grade", "age")
    voxel = {name: task.voxel for name, task in tasks.items()}
    parts = [voxel, voxel] if share else [{"lesion": True}, dict.fromkeys(second, False)]
    cls = sharing.kinds.get(kind)
    calls: list[str] = []
    for part, asked, planned_towers in zip(
        parts, (("lesion",), second), towers_by_view(config, tasks, PLAIN, second)[:2], strict=True
    ):
        model = cls(config.sharing, PLAIN, config.network, part)
        calls.clear()
        for module in model.modules():
            if isinstance(module, UnetDecoder):
                module.register_forward_hook(lambda *_: calls.append("decoder"))
            elif isinstance(module, Encoder):
                module.stages[0].register_forward_hook(lambda *_: calls.append("encoder"))
        model.features(image(PLAIN), asked)
        assert (calls.count("encoder"), calls.count("decoder")) == (planned_towers.encoders, planned_towers.decoders)
    built = towers_by_view(config, tasks, PLAIN, second)[2]
    networks = parts[:1] if share else parts
    found = sum(
        sum(p.numel() for p in cls(config.sharing, PLAIN, config.network, part).parameters()) for part in networks
    )
    assert sum(parameter_count(PLAIN, one) for one in built) == pytest.approx(found, rel=0.1)


def test_without_a_voxel_task_there_is_no_decoder(tmp_path: Path) -> None:
    config = configured(tmp_path, network__kind="unet", network__decoder="per_task")
    tasks = {name: task for name, task in build_tasks(config).items() if not task.voxel}
    assert (plan_towers(config, tasks, PLAIN).decoders, output_count(tasks)) == (0, 0)
