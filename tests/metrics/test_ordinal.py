"""Quadratic weighted kappa against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medmtl.metrics.ordinal import kappa_quadratic

PATIENTS = [f"p{i}" for i in range(60)]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    grade = random.integers(5, size=60)
    predicted = np.clip(grade + random.integers(-2, 3, size=60), 0, 4)
    found = kappa_quadratic(grade, predicted, 5, PATIENTS)
    assert found.value == pytest.approx(cohen_kappa_score(grade, predicted, weights="quadratic"), abs=1e-9)
    assert found.ci95 is not None and found.value is not None
    assert found.ci95[0] < found.value < found.ci95[1]


def test_a_constant_answer_is_as_good_as_chance_and_a_single_grade_has_no_kappa() -> None:
    grade = np.arange(60) % 3
    assert kappa_quadratic(grade, np.ones(60, int), 3, PATIENTS).value == pytest.approx(0)
    assert kappa_quadratic(grade, grade, 3, PATIENTS).value == 1
    for found in (kappa_quadratic(grade * 0, grade * 0, 3, PATIENTS), kappa_quadratic(grade[:0], grade[:0], 3, [])):
        assert found.value is None
        assert found.why
