from __future__ import annotations

import itertools

import numpy as np
import pytest

from medmtl.data.crop import (
    FOREGROUND_SHARE,
    centre_start,
    draw_placed,
    draw_start,
    kept_inside,
    whole_shape,
    window,
)

SIZE = (30, 8, 20)
PATCH = (10, 12, 20)


@pytest.mark.covers("B088")
@pytest.mark.parametrize("start", [(0, 0, 0), (-2, 1, 3), (3, -4, 2), (9, 9, 9), (-9, 0, 0)])
def test_a_window_is_what_a_loop_over_its_voxels_gives(start: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).normal(size=(2, 5, 4, 6))
    shape = (4, 5, 3)
    expected = np.zeros((2, *shape))
    for voxel in itertools.product(*map(range, shape)):
        place = tuple(v + s for v, s in zip(voxel, start, strict=True))
        if all(0 <= p < n for p, n in zip(place, array.shape[1:], strict=True)):
            for channel in range(2):
                expected[channel][voxel] = array[channel][place]
    result = window(array, start, shape)
    assert np.array_equal(result, expected)
    assert not np.shares_memory(result, array)


@pytest.mark.parametrize("size", [(5, 6, 7), (6, 9, 1)])
def test_a_centred_window_and_its_inverse(size: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).normal(size=size)
    larger = (9, 9, 10)
    start = centre_start(size, larger)
    padded = window(array, start, larger)
    assert np.abs(padded).sum() == pytest.approx(np.abs(array).sum())
    assert np.array_equal(window(padded, [-s for s in start], size), array)
    for s, n, m in zip(start, size, larger, strict=True):
        before, after = -s, m - n + s
        assert after - before in (0, 1)
    assert centre_start((9, 10, 9), (4, 4, 9)) == (2, 3, 0)


def test_a_whole_case_lies_anywhere_in_its_window_and_is_never_cut() -> None:
    starts = np.array([draw_placed(np.random.default_rng(seed), SIZE, (34, 8, 9)) for seed in range(200)])
    assert set(starts[:, 0]) == set(range(-4, 1))
    assert set(starts[:, 1]) == {0}
    assert set(starts[:, 2]) == {5}  # 20 voxels do not fit into 9: the middle


def test_patches_stay_inside_and_cover_the_case() -> None:
    starts = np.array([draw_start(np.random.default_rng(seed), SIZE, PATCH, {}) for seed in range(300)])
    assert set(starts[:, 0]) == set(range(21))
    assert set(starts[:, 1]) == {-2}
    assert set(starts[:, 2]) == {0}


def test_a_third_of_the_patches_show_a_class_drawn_evenly() -> None:
    common = np.array([[2, 3, i % 20] for i in range(1000)], np.int32)
    rare = np.array([[28, 4, 4]], np.int32)
    foreground = {"organ": {1: common}, "lesion": {2: rare}}
    starts = [draw_start(np.random.default_rng(seed), SIZE, PATCH, foreground)[0] for seed in range(3000)]
    # a start of 0 or 20 is drawn around a voxel, or by chance once in 21 times
    by_chance = (1 - FOREGROUND_SHARE) / 21
    assert starts.count(0) / 3000 == pytest.approx(FOREGROUND_SHARE / 2 + by_chance, abs=0.03)
    assert starts.count(20) / 3000 == pytest.approx(FOREGROUND_SHARE / 2 + by_chance, abs=0.03)


def test_a_patch_around_a_voxel_holds_it_in_its_middle() -> None:
    voxel = {"organ": {1: np.array([[14, 3, 9]], np.int32)}}
    starts = [draw_start(np.random.default_rng(seed), (30, 30, 30), (6, 6, 6), voxel) for seed in range(200)]
    assert 40 < starts.count((11, 0, 6)) < 100


def test_a_window_is_moved_into_the_case_and_centred_where_that_is_smaller() -> None:
    assert kept_inside((-3, 25, 4), (40, 30, 6), (16, 12, 8)) == (0, 18, -1)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(30, 17, 9)], (32, 20, 9)),
        ([(30, 17, 9), (10, 21, 3)], (32, 24, 9)),  # the largest of each axis
        ([(70, 90, 30)], (64, 64, 16)),  # never more than planned
        ([(3, 3, 1)], (16, 8, 2)),  # two voxels are left where the network is coarsest
    ],
)
def test_whole_cases_get_no_more_room_than_they_need(
    sizes: list[tuple[int, int, int]], expected: tuple[int, int, int]
) -> None:
    assert whole_shape(sizes, (64, 64, 16), (8, 4, 1)) == expected
