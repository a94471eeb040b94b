"""The discrete-time likelihood against brute force, Kaplan-Meier and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from medmtl.losses.hazards import constant_hazards_loss, cut_points, hazards_loss, kaplan_meier_hazards

CUTS = np.array([10.0, 20.0, 40.0])


def cohort(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Whole days with ties, about two thirds with an event."""
    random = np.random.default_rng(seed)
    died, left = np.ceil(random.exponential(30, n)), np.ceil(random.uniform(10, 80, n))
    return np.minimum(died, left), died <= left


def one_by_one(logits_K: np.ndarray, time: float, event: bool, cuts_K: np.ndarray) -> float:
    """The likelihood as a product over the intervals that the sample lived in."""
    likelihood, start = 1.0, 0.0
    for logit, cut in zip(logits_K, cuts_K, strict=True):
        hazard = 1 / (1 + math.exp(-logit))
        if event and start < time <= cut:
            return -math.log(likelihood * hazard)
        if (event and time > cut) or (not event and time >= (start + cut) / 2):
            likelihood *= 1 - hazard
        start = cut
    return -math.log(likelihood)


def loss_of(logits_NK: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, cuts_K: np.ndarray = CUTS) -> torch.Tensor:
    return hazards_loss(*(torch.from_numpy(array) for array in (logits_NK, time_N, event_N, cuts_K)))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_product_over_the_intervals(seed: int) -> None:
    time_N, event_N = cohort(seed)
    logits_NK = np.random.default_rng(seed).normal(size=(60, 3))
    expected = [one_by_one(*row, CUTS) for row in zip(logits_NK, time_N, event_N, strict=True)]
    np.testing.assert_allclose(loss_of(logits_NK, time_N, event_N).numpy(), expected, atol=1e-6)


def test_by_hand_at_the_borders() -> None:
    # log 2 for each interval that was lived in, with hazards of one half
    time_N = np.array([10.0, 10.5, 4.9, 5.0, 14.9, 15.0, 40.0, 41.0, 99.0])
    event_N = np.array([True, True, False, False, False, False, True, True, False])
    found = loss_of(np.zeros((9, 3)), time_N, event_N) / math.log(2)
    assert found.tolist() == pytest.approx([1, 2, 0, 1, 1, 2, 3, 3, 3])


def test_one_censored_sample_trains_and_extreme_logits_are_finite() -> None:
    logits_BK = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    loss_B = hazards_loss(logits_BK, torch.tensor([99.0]), torch.tensor([0.0]), torch.from_numpy(CUTS))
    torch.autograd.backward(loss_B.sum())
    assert (loss_B.shape, loss_B.dtype) == ((1,), torch.float32)
    assert torch.isfinite(loss_B).all()
    assert logits_BK.grad is not None
    assert torch.isfinite(logits_BK.grad).all()
    assert logits_BK.grad.count_nonzero() > 0


def test_cuts_share_the_events_out_evenly() -> None:
    time_N, event_N = np.arange(1.0, 41.0), np.tile([True, False], 20)
    assert cut_points(time_N, event_N, 4) == [9.0, 19.0, 29.0, 39.0]
    assert cut_points(np.array([5.0, 5.0, 5.0, 9.0]), np.array([True, True, True, False]), 4) == [5.0]


@pytest.mark.parametrize("seed", range(3))
def test_no_constant_has_a_lower_loss_than_kaplan_meiers_hazards(seed: int) -> None:
    time_N, event_N = cohort(seed)
    cuts_K = np.array([10.0, 25.0])  # before the last event, so that no hazard is 1

    def mean_loss(logits_K: np.ndarray) -> float:
        return float(loss_of(np.tile(logits_K, (60, 1)), time_N, event_N, cuts_K).double().mean())

    best = minimize(mean_loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    hazard_K = np.array(kaplan_meier_hazards(time_N, event_N, cuts_K))
    np.testing.assert_allclose(1 / (1 + np.exp(-best.x)), hazard_K, atol=1e-3)
    assert constant_hazards_loss(time_N, event_N, cuts_K) == pytest.approx(best.fun, abs=1e-6)


def test_without_censoring_the_hazards_are_the_shares_of_who_is_left() -> None:
    time_N = np.arange(1.0, 11.0)
    hazard_K = kaplan_meier_hazards(time_N, np.ones(10, bool), np.array([2.0, 5.0, 10.0]))
    assert hazard_K == pytest.approx([2 / 10, 3 / 8, 1 - 0.5 / 5])


def test_a_cohort_of_one_event_has_a_scale() -> None:
    assert 0 < constant_hazards_loss(np.array([3.0]), np.array([True]), np.array([3.0])) < math.inf
