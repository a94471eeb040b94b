from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medmtl.networks.cost import Towers, forward_operations
from medmtl.planning import Plan, duration, passes_per_step, with_duration
from medmtl.planning.duration import MEASURED_VOXELS, measure_operations_per_second, measured_shape
from medmtl.planning.plan import CaseView
from tests.planning.cohorts import configured, fingerprint, planned

ONE = Towers(1, 1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(duration, "MEASURED_VOXELS", 5_000)


def test_minutes_are_the_time(tmp_path: Path) -> None:
    plan = planned(configured(tmp_path, training__minutes=3), fingerprint((33, 40, 30)))
    assert plan.seconds == 180
    assert with_duration(plan, ONE) is plan


def test_steps_are_predicted_only_where_somebody_measures(small: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small.seconds is None
    monkeypatch.setattr(duration, "measure_operations_per_second", lambda plan, decoders: 1e9)
    plan = with_duration(small, ONE)
    operations = 3 * small.batch * forward_operations(small.network, ONE, small.shape)
    assert plan.seconds == pytest.approx(small.steps * 1.3 * operations / 1e9)  # type: ignore[operator]
    assert "within a factor of two" in plan.reasons["time"]
    assert replace(plan, seconds=None, reasons=small.reasons) == small


@pytest.mark.parametrize(
    ("needs", "tasks", "passes"),
    [("losses", 5, 3), ("second forward", 5, 4), ("gradients", 5, 11), ("gradients", 1, 3)],
)
def test_a_weighting_that_asks_for_more_passes_is_given_their_time(
    small: Plan, monkeypatch: pytest.MonkeyPatch, needs: str, tasks: int, passes: int
) -> None:
    monkeypatch.setattr(duration, "measure_operations_per_second", lambda plan, decoders: 1e9)
    plain, more = with_duration(small, ONE), with_duration(small, ONE, passes=passes_per_step(needs, tasks))
    assert more.seconds == pytest.approx(plain.seconds * passes / 3)  # type: ignore[operator]


def test_a_second_views_samples_take_their_time(small: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "measure_operations_per_second", lambda plan, decoders: 1e9)
    view = CaseView("tiles", ("grade",), small.preparation, (16, 16, 16), 2, tiles=3)
    more = with_duration(replace(small, case_view=view), ONE).seconds - with_duration(small, ONE).seconds  # type: ignore[operator]
    tile = forward_operations(small.network, Towers(1, 0), (16, 16, 16))
    assert more == pytest.approx(small.steps * 1.3 * 2 * 3 * 3 * tile / 1e9)  # type: ignore[operator]


@pytest.mark.parametrize("decoders", [0, 2])
def test_a_measurement_leaves_threads_and_random_numbers_alone(small: Plan, quick: None, decoders: int) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    assert measure_operations_per_second(replace(small, threads=threads + 1), decoders) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("size", [(33, 40, 30), (160, 160, 160), (320, 320, 14), (7, 7, 7), (8, 8, 8)])
def test_what_is_measured_is_small_and_fits_the_network(tmp_path: Path, size: tuple[int, int, int]) -> None:
    plan = planned(configured(tmp_path, plan__memory_gb=60), fingerprint(size))
    shape = measured_shape(plan.network, plan.shape)
    divisor = plan.network.cumulative_strides()[-1]
    assert all(n % d == 0 and n <= m for n, d, m in zip(shape, divisor, plan.shape, strict=True))
    assert shape[0] * shape[1] * shape[2] <= max(MEASURED_VOXELS, 8 * divisor[0] * divisor[1] * divisor[2])
