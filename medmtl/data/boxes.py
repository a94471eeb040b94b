"""Boxes around the lesions of a label array, and a label array from boxes.

A box is six numbers, the three lower corners and then the three upper ones, in voxels of an array. Voxel i spans i to
i + 1, so that a lesion of one voxel has a box of volume 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LEAST = 1e-3  # voxels that are left of a box at the array's face


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


def cut(box_N6: npt.NDArray[np.float64], shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Boxes as far as they lie in an array; none loses all of its extent."""
    size = np.array(shape)
    return np.concatenate([box_N6[:, :3].clip(0, size - LEAST), box_N6[:, 3:].clip(LEAST, size)], axis=1)


def whole_voxels(box_N6: npt.NDArray[np.float64], shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """Boxes to the nearest voxel, at least one voxel along each axis, and at least one of a box that meets the array.

    Args:
        box_N6: in voxels of an array.
        shape: the array's.
    """
    low, high = np.rint(box_N6[:, :3]), np.rint(box_N6[:, 3:])
    middle = np.floor((box_N6[:, :3] + box_N6[:, 3:]) / 2)
    thin = high <= low
    low, high = np.where(thin, middle, low), np.where(thin, middle + 1, high)
    size = np.array(shape)
    low = np.where(box_N6[:, :3] < size, np.minimum(low, size - 1), low)
    high = np.where(box_N6[:, 3:] > 0, np.maximum(high, 1), high)
    return np.concatenate([low, high], axis=1).astype(np.int64)


def painted(box_N6: npt.NDArray[np.float64], shape: Sequence[int]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """A label array in which every box's lesion has its place in the list, from 1, for a value.

    A lesion is taken to be the ellipsoid that fills its box, to the nearest voxel, with the lines through its middle,
    so that its box is that of :func:`boxes_in` however coarse the voxels are. Where two overlap, the smaller is on top.

    Args:
        box_N6: in voxels of the array; what lies outside of it is cut.
        shape: the array's.
    """
    whole = whole_voxels(box_N6, shape)
    label = np.zeros(shape, np.min_scalar_type(len(whole)))
    for index in np.argsort(-(box_N6[:, 3:] - box_N6[:, :3]).prod(axis=1), kind="stable"):
        low, high = whole[index, :3], whole[index, 3:]
        place = [np.arange(max(0, a), max(0, min(b, n))) for a, b, n in zip(low, high, shape, strict=True)]
        if all(len(axis) for axis in place):
            inside = _ellipsoid(place, low, high)
            part = label[tuple(slice(axis[0], axis[-1] + 1) for axis in place)]
            part[inside] = index + 1
    return label


def _ellipsoid(
    place: Sequence[npt.NDArray[np.int64]], low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which voxels of a place belong to the ellipsoid in a box, or to the lines through its middle."""
    away = [
        ((axis + 0.5 - (a + b) / 2) / ((b - a) / 2)).astype(np.float32) ** 2
        for axis, a, b in zip(place, low, high, strict=True)
    ]
    # not numpy.ix_, which takes booleans for indices
    x, y, z = (one.reshape(np.roll((-1, 1, 1), axis)) for axis, one in enumerate(away))
    on_x, on_y, on_z = (
        (axis == (a + b) // 2).reshape(np.roll((-1, 1, 1), number))
        for number, (axis, a, b) in enumerate(zip(place, low, high, strict=True))
    )
    inside: npt.NDArray[np.bool_] = (x + y + z <= 1) | (on_x & on_y) | (on_y & on_z) | (on_x & on_z)
    return inside
