from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from medmtl.data.boxes import boxes_in


def label(values: dict[int, tuple[slice, slice, slice]]) -> npt.NDArray[np.int32]:
    array = np.zeros((8, 9, 10), np.int32)
    for value, place in values.items():
        array[place] = value
    return array


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
