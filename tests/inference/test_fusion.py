from __future__ import annotations

import numpy as np
import pytest

from medmtl.inference.fusion import fused


def test_one_models_answer_stays_as_it_is() -> None:
    rows = np.array([[0, 0, 0, 2, 2, 2, 0.3], [0, 0, 0, 2, 2, 2, 0.9]])
    assert fused([rows]).tolist() == rows.tolist()


def test_boxes_of_one_lesion_are_joined_and_who_says_nothing_counts() -> None:
    one = np.array([[0, 0, 0, 4, 4, 4, 0.8]])
    two = np.array([[1, 0, 0, 5, 4, 4, 0.4], [20, 20, 20, 22, 22, 22, 0.9]])
    found = fused([one, two, np.empty((0, 7))])
    expected = [[1 / 3, 0, 0, 13 / 3, 4, 4, 0.4], [20, 20, 20, 22, 22, 22, 0.3]]
    np.testing.assert_allclose(found, expected)


def test_two_boxes_of_one_model_on_one_lesion_count_once() -> None:
    one = np.array([[0, 0, 0, 4, 4, 4, 0.8], [0, 0, 0, 4, 4, 3, 0.7]])
    (row,) = fused([one, np.array([[0, 0, 0, 4, 4, 4, 0.2]])])
    assert row[6] == pytest.approx(0.5)


def test_what_is_not_finite_is_not_hidden() -> None:
    assert np.isnan(fused([np.full((1, 7), np.nan), np.array([[0, 0, 0, 4, 4, 4, 0.8]])])).any()


def test_nothing_found_is_no_box() -> None:
    assert fused([np.empty((0, 7))] * 2).shape == (0, 7)
