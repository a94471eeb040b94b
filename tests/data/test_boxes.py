from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import box_utils

from medmtl.data.boxes import box_iou, boxes_in, fused


def label(values: dict[int, tuple[slice, slice, slice]]) -> npt.NDArray[np.int32]:
    array = np.zeros((8, 9, 10), np.int32)
    for value, place in values.items():
        array[place] = value
    return array


def random_boxes(count: int, seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 10, (count, 3))
    return np.concatenate([low, low + rng.uniform(1, 8, (count, 3))], axis=1)


def test_every_value_is_a_lesion_however_many_parts_it_has() -> None:
    array = label({70000: np.s_[1:3, 2:4, 5:9], 5: np.s_[4:5, 0:1, 0:1]})
    array[7, 8, 9] = 5
    assert boxes_in(array, components=False).tolist() == [[4, 0, 0, 8, 9, 10], [1, 2, 5, 3, 4, 9]]


def test_every_connected_part_is_a_lesion_whatever_its_value() -> None:
    array = label({1: np.s_[1:3, 2:4, 5:9]})
    array[3, 4, 4] = 2  # touches by a corner
    array[6, 6, 6] = 1
    assert boxes_in(array, components=True).tolist() == [[1, 2, 4, 4, 5, 9], [6, 6, 6, 7, 7, 7]]


@pytest.mark.parametrize("components", [True, False])
def test_background_holds_no_lesion(components: bool) -> None:
    assert boxes_in(label({}), components).shape == (0, 6)


def test_the_overlap_is_monais() -> None:
    a, b = random_boxes(12, 0), random_boxes(9, 1)
    expected = box_utils.box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(box_iou(a, b), expected, atol=1e-6)
    assert box_iou(a[:1], a[:1])[0, 0] == 1
    assert box_iou(np.zeros((1, 6)), np.zeros((1, 6)))[0, 0] == 0
    assert box_iou(a, np.empty((0, 6))).shape == (12, 0)


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
