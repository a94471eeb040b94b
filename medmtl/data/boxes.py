"""Boxes around the lesions of a label array.

A box is six numbers, the three lower corners and then the three upper ones, in voxels of an array. Voxel i spans i to
i + 1, so that a lesion of one voxel has a box of volume 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def boxes_in(label_DHW: npt.NDArray[Any], components: bool) -> npt.NDArray[np.float64]:
    """The box of every lesion, in the order of their values, or of their first voxels for components.

    Args:
        label_DHW: integers; 0 is background.
        components: whether each connected part of the foreground is a lesion (voxels that share a face, an edge or a
            corner touch); otherwise each value is one.

    Returns:
        Boxes (n, 6).
    """
    array = label_DHW
    if components:
        array, _ = ndimage.label(label_DHW != 0, np.ones((3, 3, 3)))
    else:
        # find_objects makes one entry per number up to the largest, and identifiers may be large
        values = np.unique(label_DHW)
        array = np.searchsorted(values[values > 0], label_DHW, side="right") if values.size else label_DHW
    found = ndimage.find_objects(array)
    return np.array(
        [[*(p.start for p in place), *(p.stop for p in place)] for place in found], dtype=np.float64
    ).reshape(-1, 6)
