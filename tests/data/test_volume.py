from __future__ import annotations

import numpy as np
import pytest

from medmtl.data.volume import Grid, Volume, spread_sample


def test_a_volume_has_the_shape_of_its_array() -> None:
    array = np.zeros((2, 3, 4), np.uint8)
    assert Volume(array, Grid((2, 3, 4), np.eye(4))).shape == array.shape


def test_numpy_takes_a_volume_for_its_array() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    volume = Volume(array, Grid((2, 3, 4), np.eye(4)))
    assert np.asarray(volume) is array
    assert np.asarray(volume, dtype=np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(volume), array)
    assert int((np.asarray(volume) == 1).sum()) == 1


@pytest.mark.parametrize("shape", [(64, 64, 20), (30, 32, 64), (128, 50, 1), (7, 1, 4000), (3, 4, 5)])
def test_a_sample_is_spread_over_every_plane(shape: tuple[int, int, int]) -> None:
    places = spread_sample(np.arange(np.prod(shape)).reshape(shape), 3000)
    assert min(np.prod(shape), 2000) <= len(places) <= 6000
    for axis, own in enumerate(np.unravel_index(places, shape)):
        if shape[axis] < 1000:
            assert set(own.tolist()) == set(range(shape[axis]))
