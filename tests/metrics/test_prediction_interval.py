"""Coverage and the interval score by hand, against scikit-learn, and that the true interval scores best."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from medmtl.metrics.intervals import wilson
from medmtl.metrics.prediction_interval import coverage, interval_score

PATIENTS = [f"p{i}" for i in range(12)]


def test_coverage_counts_the_bounds_in() -> None:
    observed = np.arange(12.0)
    lower, upper = observed.copy(), observed + 1
    lower[3] += 0.1
    upper[5] = observed[5]
    found = coverage(observed, lower, upper, PATIENTS)
    assert found.value == pytest.approx(11 / 12)
    assert found.ci95 == wilson(11 / 12, 12)
    assert (found.better, found.ci, found.n) == ("nominal", "wilson", 12)


def test_coverage_rests_on_patients() -> None:
    observed = np.arange(12.0)
    assert coverage(observed, observed - 1, observed + 1, ["p"] * 6 + ["q"] * 6).ci95 is None
    many = np.arange(40.0)
    found = coverage(many, many - 1, many + 1, [f"p{i // 2}" for i in range(40)])
    assert found.ci95 == wilson(1, 20)


def test_the_interval_score_is_the_sum_of_two_pinball_losses() -> None:
    random = np.random.default_rng(0)
    observed = random.normal(size=12)
    lower, upper = observed - random.normal(0.5, 1, 12), observed + random.normal(0.8, 1, 12)
    pinball = mean_pinball_loss(observed, lower, alpha=0.025) + mean_pinball_loss(observed, upper, alpha=0.975)
    found = interval_score(observed, lower, upper, PATIENTS, "ml")
    assert found.value == pytest.approx(2 / 0.05 * pinball, rel=1e-9)
    assert (found.better, found.unit) == ("lower", "ml")
    assert found.ci95 is not None


def test_the_true_interval_scores_best() -> None:
    observed = np.random.default_rng(0).normal(size=4000)
    patients = [f"p{i}" for i in range(4000)]

    def score(width: float) -> float:
        half = np.full(4000, width * norm.ppf(0.975))
        found = interval_score(observed, -half, half, patients).value
        assert found is not None
        return found

    assert score(1.0) < min(score(0.7), score(1.4))


def test_no_case_says_so() -> None:
    none = np.array([])
    for found in (coverage(none, none, none, []), interval_score(none, none, none, [])):
        assert (found.value, found.why) == (None, "no labelled case")
