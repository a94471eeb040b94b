from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from medmtl.data.augmentation import Augmentation, Draw
from medmtl.data.boxes import boxes_in, cut, painted, whole_voxels


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


def test_a_painted_box_is_found_again_to_the_nearest_voxel() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, size = rng.uniform(0, 10, 3), rng.uniform(1, 12, 3) * rng.choice([0.3, 1], 3)
        box = np.concatenate([low, low + size])[None]
        found = boxes_in(painted(box, (30, 30, 30)), components=False)
        assert found.shape == (1, 6)
        thin = size < 1
        assert (np.abs(found - box)[0][np.concatenate([~thin, ~thin])] <= 0.5 + 1e-9).all()
        assert ((found[0, 3:] - found[0, :3])[thin] == 1).sum() >= (size < 0.5).sum()


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 2), (10, 10, 2), (9, 1, 4), (2, 15, 3)])
def test_the_box_of_a_painted_lesion_is_its_own_however_flat_it_is(size: tuple[int, int, int]) -> None:
    box = np.array([[3.0, 4, 5, *(a + n for a, n in zip((3, 4, 5), size, strict=True))]])
    label = painted(box, (20, 20, 20))
    assert np.array_equal(boxes_in(label, components=False), box)
    # in one piece, and an ellipsoid where there is room for one
    assert len(boxes_in(label, components=True)) == 1
    if min(size) > 8:
        assert abs(label.astype(bool).sum() / np.prod(size) - np.pi / 6) < 0.05


def test_a_painted_ball_has_a_balls_volume() -> None:
    label = painted(np.array([[2.0, 2, 2, 22, 22, 22]]), (24, 24, 24))
    assert label.sum() == pytest.approx(np.pi / 6 * 20**3, rel=0.02)


def test_lesions_keep_their_places_in_the_list_and_the_smaller_lies_on_top() -> None:
    boxes = np.array([[10.0, 10, 10, 13, 13, 13], [2, 2, 2, 18, 18, 18], [9, 9, 9, 10, 10, 10]])
    label = painted(boxes, (20, 20, 20))
    assert np.array_equal(boxes_in(label, components=False), boxes)
    assert label.dtype == np.uint8
    assert painted(np.repeat(boxes, 100, axis=0), (20, 20, 20)).dtype == np.uint16


def test_what_lies_outside_the_array_is_cut() -> None:
    boxes = np.array([[-4.0, 2, 2, 6, 8, 8], [15, 2, 10, 25, 8, 14], [-1e7, 12, 0, 1e7, 14, 2], [30, 1, 1, 40, 2, 2]])
    found = boxes_in(painted(boxes, (20, 20, 20)), components=False)
    assert found.tolist() == [[0, 2, 2, 6, 8, 8], [15, 2, 10, 20, 8, 14], [0, 12, 0, 20, 14, 2]]


@pytest.mark.parametrize("low", [-0.2, 3.4, 3.6, 8.7])
def test_a_box_under_a_voxel_is_the_voxel_of_its_middle(low: float) -> None:
    box = np.array([[low, low, low, low + 0.8, low + 0.8, low + 0.8]])
    found = whole_voxels(box, (9, 9, 9))[0].clip(0, 9)
    assert (found[3:] - found[:3] == 1).all()
    assert abs((found[0] + found[3]) / 2 - np.clip(low + 0.4, 0.5, 8.5)) <= 0.5
    assert painted(box, (9, 9, 9)).sum() == 1


def test_nothing_to_paint() -> None:
    assert not painted(np.empty((0, 6)), (3, 4, 5)).any()


def test_turned_by_30_degrees_a_cube_has_a_wider_box_and_a_painted_lesion_has_not() -> None:
    box = np.array([[12.0, 12, 12, 28, 28, 28]])
    cube = np.zeros((40, 40, 40), np.uint8)
    cube[12:28, 12:28, 12:28] = 1
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(np.pi / 6), -0.5], [0.5, np.cos(np.pi / 6)]]
    draw = Draw(matrix=tuple(map(tuple, turn.tolist())))
    widths = []
    for label in (cube, painted(box, cube.shape)):
        image = np.zeros((1, *cube.shape), np.float32)
        settings = Augmentation.off((1.0, 1.0, 1.0))
        moved = settings.place(image, {"lesion": label}, draw, (0, 0, 0), (40, 40, 40))[1]["lesion"]
        found = boxes_in(moved, components=False)[0]
        widths.append((found[3:] - found[:3]) / 16)
    assert widths[0][:2] == pytest.approx([1.366, 1.366], abs=0.07)
    assert widths[1] == pytest.approx([1, 1, 1], abs=0.07)


def test_a_box_at_the_face_of_the_array_keeps_an_extent() -> None:
    boxes = np.array([[-3.0, 1, 1, 2, 5, 9], [8.00001, 2, 2, 8.00003, 4, 4], [-2, 2, 2, -0.1, 4, 4]])
    found = cut(boxes, (8, 8, 8))
    assert found[0].tolist() == [0, 1, 1, 2, 5, 8]
    assert found[1:, [0, 3]].tolist() == [[7.999, 8], [0, 0.001]]
