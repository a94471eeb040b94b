from __future__ import annotations

import numpy as np

from medmtl.data.volume import Grid, Volume


def test_a_volume_has_the_shape_of_its_array() -> None:
    array = np.zeros((2, 3, 4), np.uint8)
    assert Volume(array, Grid((2, 3, 4), np.eye(4))).shape == array.shape
