"""Trainings whose tasks have networks of their own, from a cohort to a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.errors import ConfigError, InputError, InterruptedRun
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records
from tests.training.test_optimiser import stopped_at

SHARING: dict[str, dict[str, Any]] = {
    "soft": {"sharing.kind": "soft", "sharing.mu": 10.0},
    "cross_stitch": {"sharing.kind": "cross_stitch"},
}


@pytest.mark.parametrize("kind", SHARING)
def test_a_resumed_run_has_the_bytes_of_the_uninterrupted_one(tiny_cohort: Path, tmp_path: Path, kind: str) -> None:
    overrides = {**TINY, **SHARING[kind]}
    api.train(tiny_cohort, tmp_path / "whole", device="cpu", overrides=overrides)
    with pytest.raises(InterruptedRun):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, progress=stopped_at(3))
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, resume=True)
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    assert records(tmp_path / "run") == records(tmp_path / "whole")
    norms = {name for record in records(tmp_path / "run") for name in record.get("gradient_norms", ())}
    towers = (
        {"lesion's tower", "malignancy's tower", "risk's tower"} if kind == "soft" else {"trunk", "trunk of case tasks"}
    )
    assert norms == towers | {"malignancy", "risk"}


@pytest.fixture(scope="module")
def soft_run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = {**TINY, **SHARING["soft"], "training.steps": 2}
    return api.train(tiny_cohort, tmp_path_factory.mktemp("soft") / "run", device="cpu", overrides=overrides)


def test_towers_answer_a_scan_and_start_another_training(tiny_cohort: Path, tmp_path: Path, soft_run: Path) -> None:
    image = tiny_cohort.parent / "images" / "case_000.nii.gz"
    assert "masks/lesion" in api.predict(soft_run, [image], tmp_path / "out", device="cpu").read_text(encoding="utf-8")
    overrides = {**TINY, **SHARING["soft"], "training.steps": 1, "init.run": str(soft_run)}
    again = RunFolder.open(api.train(tiny_cohort, tmp_path / "again", device="cpu", overrides=overrides))
    assert again.load_manifest()["init"]["absent"] == []


def test_a_trunk_of_another_kind_of_sharing_does_not_fit(tiny_cohort: Path, tmp_path: Path, soft_run: Path) -> None:
    overrides = {**TINY, "init.run": str(soft_run)}
    with pytest.raises(InputError, match="network and sharing as they are in that run"):
        api.train(tiny_cohort, tmp_path / "hard", device="cpu", overrides={**overrides, "sharing.kind": "hard"})


def test_a_plan_counts_towers_and_refuses_stages_that_are_not_there(tiny_cohort: Path) -> None:
    small = {**TINY, "plan.width": 16, "plan.max_width": 64, "training.steps": 2}
    hard, soft = (
        api.plan(tiny_cohort, device="cpu", overrides={**small, "sharing.kind": kind}) for kind in ("hard", "soft")
    )
    assert soft.memory_bytes > hard.memory_bytes
    with pytest.raises(ConfigError, match=r"sharing: shared_stages 9 leaves nothing to groups") as error:
        api.plan(tiny_cohort, device="cpu", overrides={**small, "sharing.kind": "hard", "sharing.shared_stages": 9})
    assert error.value.code == "B142"
