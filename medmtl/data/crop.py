"""Samples of a given shape from cases of any shape, by padding and cropping only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

Triple = tuple[int, int, int]

FOREGROUND_SHARE = 1 / 3  # of patches, as in nnU-Net
LEAST = 2  # voxels that an axis keeps at the deepest stage; a norm over a single voxel is 0 whatever it holds


def round_up(shape: Sequence[int], divisor: Sequence[int]) -> Triple:
    """The smallest multiple of the divisor, per axis, that holds the shape."""
    rounded = [math.ceil(n / d) * d for n, d in zip(shape, divisor, strict=True)]
    return (rounded[0], rounded[1], rounded[2])


def norms_hold(shape: Sequence[int], divisor: Sequence[int]) -> bool:
    """Whether the deepest map of a sample has the two voxels, on whichever axis, that a norm wants."""
    return math.prod(shape) >= LEAST * math.prod(divisor)


def whole_shape(sizes: Iterable[Sequence[int]], limit: Sequence[int], divisor: Sequence[int]) -> Triple:
    """The smallest shape that a network takes and that holds whole cases, but no larger than the planned one.

    Around a small case in a sample of the largest one's shape there is little but padding, and a step costs as much as
    its voxels.

    Args:
        sizes: voxels of each case.
        limit: the planned shape, a multiple of ``divisor``.
        divisor: what the network divides a sample's axes by.
    """
    largest = [max(axis) for axis in zip(*sizes, strict=True)]
    held = round_up([max(n, LEAST * d) for n, d in zip(largest, divisor, strict=True)], divisor)
    return (min(held[0], limit[0]), min(held[1], limit[1]), min(held[2], limit[2]))


def centre_start(size: Sequence[int], shape: Sequence[int]) -> Triple:
    """Where a centred window of ``shape`` begins; negative where the case is smaller than the window."""
    start = [-((m - n) // 2) if m > n else (n - m) // 2 for n, m in zip(size, shape, strict=True)]
    return (start[0], start[1], start[2])


def draw_placed(rng: np.random.Generator, size: Sequence[int], shape: Sequence[int]) -> Triple:
    """Where a window that holds the case begins, drawn evenly; centred along axes on which the case is larger.

    A network with strides sees another image where the same one lies a voxel further on.

    Args:
        rng: what is drawn depends on it alone.
        size: voxels of the case.
        shape: voxels of the window.
    """
    x, y, z = (
        int(rng.integers(n - m, 1)) if n < m else fitted
        for n, m, fitted in zip(size, shape, centre_start(size, shape), strict=True)
    )
    return (x, y, z)


def window(array: npt.NDArray[Any], start: Sequence[int], shape: Sequence[int], beyond: float = 0) -> npt.NDArray[Any]:
    """A copy of ``shape`` voxels of the last three axes from ``start``; ``beyond`` where the window leaves the array.

    0 is the mean after normalisation and the background of a label.
    """
    result = np.full((*array.shape[:-3], *shape), beyond, array.dtype)
    source: list[slice | EllipsisType] = [...]
    target: list[slice | EllipsisType] = [...]
    for begin, length, size in zip(start, shape, array.shape[-3:], strict=True):
        low, high = max(0, begin), min(size, begin + length)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - begin, max(low, high) - begin))
    result[tuple(target)] = array[tuple(source)]
    return result


def window_around(centre: Sequence[int], shape: Sequence[int]) -> Triple:
    """Where a window around a voxel begins; it may leave the case."""
    x, y, z = (c - n // 2 for c, n in zip(centre, shape, strict=True))
    return (x, y, z)


def kept_inside(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> Triple:
    """The window moved into the case; centred along axes on which the case is smaller."""
    x, y, z = (
        int(np.clip(begin, 0, n - m)) if n > m else fitted
        for begin, n, m, fitted in zip(start, size, shape, centre_start(size, shape), strict=True)
    )
    return (x, y, z)


def anywhere(size: Sequence[int], shape: Sequence[int], rng: np.random.Generator | None) -> Triple:
    """Where a window inside the case begins, drawn evenly; centred along axes on which the case is smaller.

    Without a generator it is centred along all.
    """
    if rng is None:
        return centre_start(size, shape)
    x, y, z = (
        int(rng.integers(0, n - m + 1)) if n > m else fitted
        for n, m, fitted in zip(size, shape, centre_start(size, shape), strict=True)
    )
    return (x, y, z)


def draw_start(
    rng: np.random.Generator,
    size: Sequence[int],
    shape: Sequence[int],
    foreground: Mapping[str, Mapping[int, npt.NDArray[np.int32]]],
) -> Triple:
    """Where a random patch begins: anywhere or, for a third of them, around a labelled voxel of a class drawn evenly.

    A patch leaves the case only along axes on which the case is smaller; there it is centred.

    Args:
        rng: what is drawn depends on it alone.
        size: voxels of the case.
        shape: voxels of the patch.
        foreground: voxel task -> label value -> voxel indices (n, 3).
    """
    classes = [(task, value) for task, values in foreground.items() for value in values]
    around = rng.random() < FOREGROUND_SHARE
    start = anywhere(size, shape, rng)
    if around and classes:
        task, value = classes[int(rng.integers(len(classes)))]
        places = foreground[task][value]
        place = places[int(rng.integers(len(places)))].tolist()
        start = kept_inside(window_around(place, shape), size, shape)
    return start
