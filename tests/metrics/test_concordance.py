"""Concordance against lifelines, torchsurv, scikit-learn and brute force over all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lifelines.utils import concordance_index
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from medmtl.metrics.concordance import auc_at, harrell_c, uno_c
from medmtl.metrics.kaplan_meier import censoring_curve
from tests.metrics.survival_cohort import Auc, ConcordanceIndex, follow_up

HORIZON = 30.0


def weights(time_N: Any, event_N: Any) -> Any:
    return 1 / censoring_curve(time_N, event_N).at(time_N, before=True)


def brute_force(
    time_N: Any, event_N: Any, risk_N: Any, weight_N: Any, fold_N: Any, patient_N: Any
) -> tuple[float, float]:
    """Value and variance, pair by pair; each pair moves its two cases."""
    pairs = [
        (i, j, weight_N[i] ** 2, (risk_N[i] > risk_N[j]) + 0.5 * (risk_N[i] == risk_N[j]))
        for i in range(len(time_N))
        for j in range(len(time_N))
        if fold_N[i] == fold_N[j]
        and event_N[i]
        and (time_N[i] < time_N[j] or (time_N[i] == time_N[j] and not event_N[j]))
    ]
    total = sum(weight for _, _, weight, _ in pairs)
    value = sum(weight * win for _, _, weight, win in pairs) / total
    moved = dict.fromkeys(patient_N, 0.0)
    for i, j, weight, win in pairs:
        for case in (i, j):
            moved[patient_N[case]] += weight * (win - value) / total
    return value, sum(shift**2 for shift in moved.values())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("whole_days", [True, False])
def test_harrells_c_is_lifelines(seed: int, whole_days: bool) -> None:
    time_N, event_N, risk_N = follow_up(seed, whole_days=whole_days)
    expected = concordance_index(time_N, -risk_N, event_N)
    estimate = harrell_c(time_N, event_N, risk_N)
    assert estimate.value == pytest.approx(expected, abs=1e-9)
    assert (estimate.better, estimate.ci, estimate.n) == ("higher", "u-statistic-logit", 80)


def test_a_higher_risk_means_an_earlier_event() -> None:
    time_N, event_N = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    assert harrell_c(time_N, event_N, -time_N).value == 1.0
    assert harrell_c(time_N, event_N, time_N).value == 0.0
    assert harrell_c(time_N, event_N, np.zeros(3)).value == 0.5


def test_equal_times_are_compared_only_where_one_is_censored() -> None:
    time_N = np.array([2.0, 2.0])
    assert harrell_c(time_N, np.array([True, False]), np.array([1.0, 0.0])).value == 1.0
    for event_N in (np.array([True, True]), np.array([False, False])):
        estimate = harrell_c(time_N, event_N, np.array([1.0, 0.0]))
        assert estimate.value is None
        assert estimate.why is not None
        assert "known to have had the event first" in estimate.why


@pytest.mark.parametrize("seed", range(3))
def test_unos_c_is_torchsurvs(seed: int) -> None:
    time_N, event_N, risk_N = follow_up(seed, whole_days=False)
    weight_N = weights(time_N, event_N)
    expected = ConcordanceIndex()(
        *(torch.from_numpy(array) for array in (risk_N, event_N, time_N)), weight=torch.from_numpy(weight_N)
    )
    assert uno_c(time_N, event_N, risk_N, weight_N).value == pytest.approx(float(expected), abs=1e-6)


def test_events_of_weight_zero_are_left_out_as_earlier_cases() -> None:
    time_N, event_N, risk_N = follow_up(5, whole_days=False)
    weight_N = weights(time_N, event_N)
    expected = ConcordanceIndex()(
        *(torch.from_numpy(array) for array in (risk_N, event_N, time_N)),
        weight=torch.from_numpy(weight_N),
        tmax=torch.tensor(HORIZON),
    )
    cut_N = np.where(time_N < HORIZON, weight_N, 0.0)
    assert uno_c(time_N, event_N, risk_N, cut_N).value == pytest.approx(float(expected), abs=1e-6)


def test_where_no_event_has_a_weight_that_is_why() -> None:
    time_N, event_N = np.array([400.0, 500.0, 900.0]), np.array([True, True, False])
    found = uno_c(time_N, event_N, np.zeros(3), np.zeros(3))
    assert found.value is None and found.why is not None and found.why.startswith("no event counts by its weight")


@pytest.mark.parametrize("seed", range(3))
def test_value_and_interval_by_brute_force_over_folds_and_patients(seed: int) -> None:
    time_N, event_N, risk_N = follow_up(seed, 90)
    random = np.random.default_rng(seed)
    fold_N = random.integers(3, size=90)
    risk_N = risk_N + 10 * fold_N  # models on scales of their own
    patient_N = fold_N * 100 + random.integers(20, size=90)
    weight_N = weights(time_N, event_N)
    value, variance = brute_force(time_N, event_N, risk_N, weight_N, fold_N, patient_N)
    estimate = uno_c(time_N, event_N, risk_N, weight_N, fold_N, [f"p{i}" for i in patient_N])
    assert estimate.value == pytest.approx(value, abs=1e-9)
    half = 1.959964 * np.sqrt(variance) / (value * (1 - value))
    assert estimate.ci95 == pytest.approx((expit(logit(value) - half), expit(logit(value) + half)), abs=1e-6)


def test_the_standard_error_is_that_of_repeated_cohorts() -> None:
    found = [harrell_c(*follow_up(seed, 100, whole_days=False)) for seed in range(200)]
    spread = np.std([estimate.value for estimate in found])
    widths = [logit(e.ci95[1]) - logit(e.ci95[0]) for e in found if e.ci95 and e.value]
    errors = [w / (2 * 1.959964) * e.value * (1 - e.value) for w, e in zip(widths, found, strict=True) if e.value]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_the_area_at_a_time_is_torchsurvs(seed: int) -> None:
    time_N, event_N, risk_N = follow_up(seed, whole_days=False)
    weight_N = weights(time_N, event_N)
    at = censoring_curve(time_N, event_N).at(np.array([HORIZON]))
    expected = Auc()(
        *(torch.from_numpy(array) for array in (risk_N, event_N, time_N)),
        new_time=torch.tensor([HORIZON], dtype=torch.float64),
        weight=torch.from_numpy(weight_N),
        weight_new_time=torch.from_numpy(1 / at),
    )
    assert auc_at(HORIZON, time_N, event_N, risk_N, weight_N).value == pytest.approx(float(expected[0]), abs=1e-6)


def test_without_censoring_the_area_is_scikit_learns() -> None:
    time_N, _, risk_N = follow_up(1)
    everybody = np.ones(80, bool)
    expected = roc_auc_score(time_N <= HORIZON, risk_N)
    assert auc_at(HORIZON, time_N, everybody, risk_N, np.ones(80)).value == pytest.approx(expected, abs=1e-9)


def test_who_was_censored_before_the_time_is_on_neither_side() -> None:
    time_N, event_N, risk_N = follow_up(2)
    told_N = event_N | (time_N >= HORIZON)
    whole = auc_at(HORIZON, time_N, event_N, risk_N, np.ones(80))
    assert whole == auc_at(HORIZON, time_N[told_N], event_N[told_N], risk_N[told_N], np.ones(told_N.sum()))


def test_who_was_followed_to_the_time_itself_is_known_to_be_without_the_event() -> None:
    time_N, _, risk_N = follow_up(1, whole_days=False)
    ended_N, event_N = np.minimum(time_N, HORIZON), time_N < HORIZON
    expected = roc_auc_score(event_N, risk_N)
    assert 0.2 < event_N.mean() < 0.8
    assert auc_at(HORIZON, ended_N, event_N, risk_N, np.ones(80)).value == pytest.approx(expected, abs=1e-9)


def test_too_few_patients_or_events_have_no_interval() -> None:
    time_N, event_N, risk_N = follow_up(0, 30, whole_days=False)
    assert harrell_c(time_N[:9], event_N[:9], risk_N[:9]).why == "fewer than 10 patients"
    few_N = event_N & (np.cumsum(event_N) < 9)
    assert harrell_c(time_N, few_N, risk_N).why == "fewer than 10 patients with an event"
    area = auc_at(HORIZON, time_N, few_N, risk_N, np.ones(30))
    assert (area.ci95, area.why) == (None, "fewer than 10 patients in the rarest class")
    perfect = harrell_c(time_N, event_N, -time_N)
    assert (perfect.value, perfect.ci95, perfect.why) == (1.0, None, "its estimated variance is zero")


def test_an_interval_rests_on_patients_and_on_events_that_count() -> None:
    time_N, event_N, risk_N = follow_up(0, whole_days=False)
    few = harrell_c(time_N, event_N, risk_N, patients=[f"p{i % 9}" for i in range(80)])
    assert (few.ci95, few.why) == (None, "fewer than 10 patients")
    nine_N = (event_N & (np.cumsum(event_N) < 10)).astype(float)
    assert uno_c(time_N, event_N, risk_N, nine_N).why == "fewer than 10 patients with an event"
    # nine are followed beyond the time; who left before it is on neither side
    area = auc_at(np.sort(time_N)[-10:-8].mean(), time_N, event_N, risk_N, np.ones(80))
    assert area.value is not None
    assert (area.ci95, area.why) == (None, "fewer than 10 patients in the rarest class")


def test_no_case_and_bad_input() -> None:
    nothing = np.zeros(0)
    assert harrell_c(nothing, nothing.astype(bool), nothing).value is None
    assert auc_at(HORIZON, nothing, nothing.astype(bool), nothing, nothing).value is None
    with pytest.raises(ValueError, match="finite"):
        harrell_c(np.ones(1), np.ones(1, bool), np.array([np.nan]))
    with pytest.raises(ValueError, match="lengths differ"):
        harrell_c(np.ones(2), np.ones(2, bool), np.ones(1))
