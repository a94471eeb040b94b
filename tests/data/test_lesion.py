from __future__ import annotations

import numpy as np

from medmtl.data.lesion import bounding_box, lesion_centre, marked


def empty() -> np.ndarray:
    return np.zeros((12, 10, 8), np.uint8)


def test_the_centre_is_the_middle_of_the_largest_parts_box() -> None:
    label = empty()
    label[1:4, 1:4, 1:4] = 1  # 27 voxels
    label[6:11, 5:9, 4:7] = 2  # 60 voxels
    assert lesion_centre(label != 0) == (8, 6, 5)


def test_parts_that_touch_by_a_corner_are_one() -> None:
    label = empty()
    label[0:2, 0:2, 0:2] = 1
    label[2:4, 2:4, 2:4] = 1
    label[8:10, 8:10, 0:3] = 1  # 12 voxels, fewer than the 16 of the pair
    assert lesion_centre(label != 0) == (1, 1, 1)


def test_of_equal_parts_the_first_counts() -> None:
    label = empty()
    label[9:11, 0:2, 0:2] = 1
    label[1:3, 6:8, 5:7] = 1
    assert lesion_centre(label != 0) == (1, 6, 5)


def test_nothing_marked_has_no_centre() -> None:
    assert lesion_centre(empty() != 0) is None
    assert bounding_box(empty() != 0) is None


def test_what_nobody_labelled_is_no_lesion() -> None:
    label = empty()
    label[0, 0, 0], label[5, 5, 5] = 255, 1
    assert marked(label, 255).sum() == 1
    assert marked(label, None).sum() == 2
