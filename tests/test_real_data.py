"""The whole path on real scans, where a development copy of them lies beside the repository."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmtl import api

DATA = Path(__file__).parents[2] / "shared" / "data"
SUFFIXES = ("t1", "t1c", "t2", "fla")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real scans are not part of the repository and are not here"),
]


def test_a_real_four_channel_case_is_predicted_on_its_own_grid(tmp_path: Path) -> None:
    config = api.synth(tmp_path / "cohort", cases=12, channels=4)
    small = {"training.steps": 10, "plan.width": 4, "plan.max_width": 8, "inference.overlap": 0.0}
    run = api.train(config, tmp_path / "run", device="cpu", overrides=small)
    channels = api.load(run, device="cpu").channels
    scans = [DATA / "samples" / "glioma" / f"TCGA-DU-7294_{suffix}.nii.gz" for suffix in SUFFIXES]
    inputs = [f"{channel}={scan}" for channel, scan in zip(channels, scans, strict=True)]
    table = api.predict(run, inputs, tmp_path / "out", device="cpu")
    (row,) = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    mask, scan = nibabel.load(tmp_path / "out" / row["lesion_file"]), nibabel.load(scans[0])
    assert mask.shape == scan.shape == (240, 240, 155)
    assert np.allclose(mask.affine, scan.affine, atol=1e-4)
    assert row["outside_training"]


@pytest.mark.parametrize("cohort", ["hippocampus", "cine"])
def test_a_real_cohort_passes_the_check(cohort: str) -> None:
    config = Path(__file__).parents[1] / "configs" / f"{cohort}.yaml"
    findings = api.check(config, overrides={"cohort.table": str(DATA / cohort / "cohort.csv")})
    assert [f.sentence() for f in findings if f.severity == "reject"] == []
