from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.networks.cost import parameter_count
from medmtl.planning import Plan
from medmtl.planning.disk import cache_bytes, checkpoint_bytes, run_bytes
from medmtl.run_folder import RunFolder
from tests.planning.cohorts import configured, fingerprint, planned


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_and_the_cache_of_a_run_are_not_larger_than_predicted(trained_run: Path) -> None:
    run = RunFolder.open(trained_run)
    plan = run.load_plan()
    checkpoint = checkpoint_bytes(parameter_count(plan.network, 1), average=True)
    real = max(folder_bytes(folder) for folder in run.checkpoints.glob("step-*"))
    assert real <= checkpoint <= real + 1_000_000
    cache = folder_bytes(trained_run.parent / ".medmtl-cache")
    assert checkpoint + cache <= plan.disk_bytes
    predicted = run_bytes(checkpoint, 2, 0)
    assert predicted == 3 * checkpoint
    # the rest is the cache, of which half a megabyte may be room for foreground voxels that small lesions do not have
    assert cache <= plan.disk_bytes - predicted <= 1.1 * cache + 12 * 64_000


@pytest.mark.parametrize(("labels", "each"), [([], 4), ([1], 5), ([255, 3], 6), ([256], 6), ([70_000], 8)])
def test_a_label_takes_as_many_bytes_as_its_largest_value_needs(labels: list[int], each: int) -> None:
    assert cache_bytes([(10, 10, 10)], 1, labels) - cache_bytes([(10, 10, 10)], 0, []) == 1000 * each


def test_weights_that_are_not_averaged_take_less() -> None:
    assert checkpoint_bytes(1_000_000, average=True) - checkpoint_bytes(1_000_000, average=False) == 4_000_000


def test_the_plan_counts_one_commit_more_than_is_kept(small: Plan, tmp_path: Path) -> None:
    more = planned(configured(tmp_path, training__keep=5), fingerprint((33, 40, 30)), fingerprint((28, 50, 20)))
    checkpoint = checkpoint_bytes(parameter_count(small.network, 1), average=True)
    assert more.disk_bytes - small.disk_bytes == 3 * checkpoint
    assert "2 + 1 checkpoints" in small.reasons["disk"]
