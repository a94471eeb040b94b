from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmtl.data.prepared import Prepared
from medmtl.data.view import View
from medmtl.data.volume import Grid
from medmtl.rng import generator

SIZE = (40, 30, 20)
SHAPE = (16, 12, 8)
LESION = (30, 8, 15)  # its middle


def prepared(lesion: bool | None = True) -> Prepared:
    """A case whose only lesion is a cube; without one for False, without a mask for None."""
    label = np.zeros(SIZE, np.uint8)
    if lesion:
        label[tuple(slice(n - 1, n + 2) for n in LESION)] = 1
    grid = Grid(SIZE, np.eye(4))
    labels: dict[str, Any] = {} if lesion is None else {"tumour": label}
    image = np.zeros((1, *SIZE), np.float32)
    return Prepared("c", image, labels, grid, grid, ({},), {"tumour": {1: np.argwhere(label)}}, {})


def holds_lesion(start: tuple[int, int, int]) -> bool:
    return all(s <= p < s + n for s, p, n in zip(start, LESION, SHAPE, strict=True))


def test_a_whole_case_is_centred_without_draws_and_anywhere_with_them() -> None:
    view = View("case", (48, 48, 24))
    assert view.starts(prepared(), (48, 32, 24), None) == [(-4, -1, -2)]
    drawn = {view.starts(prepared(), (48, 32, 24), generator(0, n))[0] for n in range(200)}
    assert len(drawn) > 80  # of 9 x 3 x 5 places
    assert all(s <= 0 and s + m >= n for one in drawn for s, n, m in zip(one, SIZE, (48, 32, 24), strict=True))


def test_a_lesions_window_is_centred_without_draws_and_holds_it_with_them() -> None:
    view = View("lesion", SHAPE, around="tumour")
    (start,) = view.starts(prepared(), SHAPE, None)
    assert start == (22, 2, 11)  # it may leave the case, along z here
    drawn = {view.starts(prepared(), SHAPE, generator(0, n))[0] for n in range(40)}
    assert len(drawn) > 20
    assert all(holds_lesion(one) for one in drawn)
    reach = [max(abs(one[axis] - start[axis]) for one in drawn) for axis in range(3)]
    assert reach == [2, 1, 1]  # an eighth of the window


def test_a_case_without_a_lesion_shows_any_part_and_one_without_a_mask_nothing() -> None:
    view = View("lesion", SHAPE, around="tumour")
    assert view.shows(prepared(lesion=False))
    assert not view.shows(prepared(lesion=None))
    drawn = {view.starts(prepared(lesion=False), SHAPE, generator(0, n))[0] for n in range(40)}
    assert len(drawn) > 20
    assert all(0 <= s <= n - m for one in drawn for s, n, m in zip(one, SIZE, SHAPE, strict=True))


@pytest.mark.parametrize("rng", [None, 3])
def test_a_bag_holds_the_lesion_where_the_mask_tells_of_one(rng: int | None) -> None:
    view = View("tiles", SHAPE, tiles=4, around="tumour")
    starts = view.starts(prepared(), SHAPE, None if rng is None else generator(0, rng))
    assert len(starts) == 4
    assert holds_lesion(starts[0])
    assert all(0 <= s <= n - m for one in starts for s, n, m in zip(one, SIZE, SHAPE, strict=True))
    assert len(View("tiles", SHAPE, tiles=4, around="tumour").starts(prepared(lesion=None), SHAPE, None)) == 4


def test_tiles_of_a_case_that_no_mask_tells_of_are_spread() -> None:
    starts = View("tiles", SHAPE, tiles=3).starts(prepared(), SHAPE, None)
    assert len(set(starts)) == 3
    assert starts == sorted(starts)
