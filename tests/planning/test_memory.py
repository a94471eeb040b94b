from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.device import Device
from medmtl.planning import Plan
from tests.planning.cohorts import GPU, budget_of


def test_memory_grows_with_batch_shape_and_precision(small: Plan) -> None:
    def need(shape: tuple[int, int, int] = (32, 32, 32), batch: int = 2, precision: str = "bf16") -> int:
        return budget_of(small, precision).need(shape, batch)

    assert need() < need(batch=4) < need(batch=8)
    assert need() < need(shape=(64, 32, 32)) == need(shape=(32, 32, 64))
    assert need() < need(precision="fp32")
    # all but what is there before the first sample grows in proportion
    assert need(batch=8) - need(batch=4) == pytest.approx(2 * (need(batch=4) - need(batch=2)), abs=4)
    assert need(shape=(64, 32, 32), batch=2) == pytest.approx(need(batch=4), abs=4)


def test_memory_grows_with_what_stands_on_the_encoder(small: Plan) -> None:
    def need(outputs: int = 2, **towers: float) -> int:
        budget = replace(budget_of(small), outputs=outputs)
        return replace(budget, towers=replace(budget.towers, **towers)).need((32, 32, 32), 2)

    assert need(decoders=0, outputs=0) < need(decoders=1) < need(decoders=1, reruns=1) < need(decoders=2)
    assert need(outputs=2) < need(outputs=8)
    assert need(encoders=1) < need(encoders=2, common=2) < need(encoders=2, common=1) < need(encoders=2)
    assert need() < need(beside_maps=1.0)
    assert need() < need(beside_weights=1.0)


def test_a_gpu_holds_no_process(small: Plan) -> None:
    budget = budget_of(small)
    assert budget.need((32, 32, 32), 2) - replace(budget, device=GPU).need((32, 32, 32), 2) == 700_000_000


def test_samples_of_several_shapes_leave_holes_in_a_processs_memory_and_none_on_a_gpu(small: Plan) -> None:
    budget = budget_of(small)

    def growth(device: Device, varied_axes: int) -> int:
        changed = replace(budget, device=device, varied_axes=varied_axes)
        return changed.need((32, 32, 32), 4) - changed.need((32, 32, 32), 2)

    assert growth(budget.device, 2) == pytest.approx(1.6 * growth(budget.device, 0), abs=4)
    assert growth(GPU, 2) == growth(GPU, 0)


def test_the_largest_batch_is_the_last_that_fits(small: Plan) -> None:
    need = budget_of(small).need((32, 32, 32), 5)
    budget = replace(budget_of(small), limit_bytes=need)
    assert budget.largest_batch((32, 32, 32), 16) == 5
    assert budget.largest_batch((32, 32, 32), 3) == 3
    assert replace(budget, limit_bytes=1).largest_batch((32, 32, 32), 16) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cine", "cube, no segmentation", "wide"])
def test_a_real_training_takes_what_was_planned(name: str) -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "memory_model.py"
    done = subprocess.run([sys.executable, program, name], capture_output=True, text=True, check=True)
    ratio = float(done.stdout.splitlines()[-1].split("|")[-2])
    assert 1.0 <= ratio <= 1.25
