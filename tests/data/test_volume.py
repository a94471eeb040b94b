from __future__ import annotations

import numpy as np

from medmtl.data.volume import Grid, Volume


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
