"""What a network computes in where it predicts, and what that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl import api
from medmtl.data.case import Case
from medmtl.device import Device
from medmtl.inference.ask import chosen_precision
from medmtl.inference.predict import Predictor
from medmtl.metrics.overlap import dice
from medmtl.run_folder import RunFolder
from tests.conftest import TINY

OLD, NEW, GPU = Device("cpu", False, 2), Device("cpu", True, 2), Device("cuda", False, 2)
STEPS = 150


@pytest.mark.parametrize(
    ("trained", "device", "expected"),
    [
        ("fp32", OLD, "fp32"),
        ("bf16", NEW, "bf16"),
        ("bf16", OLD, "fp32"),
        ("bf16", GPU, "fp32"),
        ("fp16", GPU, "fp16"),
        ("fp16", NEW, "fp32"),
    ],
)
def test_auto_is_the_trainings_arithmetic_where_the_device_has_it(trained: Any, device: Device, expected: str) -> None:
    assert chosen_precision("auto", trained, device) == expected
    assert chosen_precision("fp32", trained, device) == "fp32"
    assert chosen_precision("bf16", trained, device) == "bf16"


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Trained until it finds lesions, so that its probabilities are those of a model in use."""
    out = tmp_path_factory.mktemp("precision") / "run"
    overrides = {**TINY, "training.steps": STEPS, "training.checkpoint_every": STEPS, "plan.precision": "fp32"}
    return RunFolder.open(api.train(tiny_cohort, out, device="cpu", overrides=overrides))


def predictor(run: RunFolder, precision: str, patch: pytest.MonkeyPatch) -> Predictor:
    config = run.load_config()
    chosen = config.model_copy(update={"inference": config.inference.model_copy(update={"precision": precision})})
    patch.setattr(RunFolder, "load_config", lambda self: chosen)
    return Predictor([run], "cpu")


@pytest.mark.slow
def test_masks_in_bfloat16_agree_with_those_in_fp32(
    run: RunFolder, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted((tiny_cohort.parent / "images").iterdir())
    masks = {}
    for precision in ("fp32", "bf16"):
        asked = predictor(run, precision, monkeypatch)
        assert asked.plan.precision == precision
        found = [asked.predict(Case("c", "c", None, 0, {"image": path}))["lesion"].mask for path in paths]
        masks[precision] = np.concatenate([mask.array.ravel() for mask in found if mask is not None]) != 0
    assert masks["fp32"].sum() > 100
    overlap = dice(masks["bf16"], masks["fp32"])
    assert overlap is not None and 0.99 < overlap < 1
