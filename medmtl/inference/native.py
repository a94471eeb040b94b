"""From probabilities at working spacing to labels on the scan's own grid, slab by slab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medmtl.data.geometry import canonical_grid, restore
from medmtl.data.volume import Grid, Volume

SLAB_VALUES = 16_000_000  # probabilities in memory at once: 64 MB in fp32


def to_native(
    probability_KDHW: torch.Tensor,
    grid: Grid,
    native: Grid,
    decide: Callable[[torch.Tensor], torch.Tensor],
) -> Volume:
    """Labels on the native grid.

    Probabilities are interpolated linearly (never the labels), a slab of native planes at a time, so that all classes
    are never held at full size; each slab is decided at once.

    Args:
        probability_KDHW: at working spacing, RAS-ordered.
        grid: grid of ``probability_KDHW``; its axes are those of the canonical native grid, scaled and shifted.
        native: grid of the scan's file.
        decide: probabilities or values (K, d, H, W) -> labels or values (d, H, W).

    Returns:
        The mask with the native shape and affine.
    """
    target = canonical_grid(native)
    placement = np.linalg.inv(grid.affine) @ target.affine
    positions = [
        torch.from_numpy(placement[axis, axis] * np.arange(target.shape[axis]) + placement[axis, 3])
        for axis in range(3)
    ]
    if _same_places(positions, probability_KDHW.shape[1:]):
        positions = []
    classes, planes = probability_KDHW.shape[0], target.shape[0]
    step = max(1, SLAB_VALUES // (classes * target.shape[1] * target.shape[2]))
    slabs: list[npt.NDArray[Any]] = []
    for start in range(0, planes, step):
        stop = min(planes, start + step)
        if positions:
            slab = _interpolate(probability_KDHW, positions[0][start:stop], 1)
            slab = _interpolate(_interpolate(slab, positions[1], 2), positions[2], 3)
        else:
            slab = probability_KDHW[:, start:stop]
        slabs.append(decide(slab).cpu().numpy())
    return Volume(restore(np.concatenate(slabs), native), native)


def _same_places(positions: list[torch.Tensor], shape: torch.Size) -> bool:
    return all(
        len(place) == size and bool((place - torch.arange(size)).abs().max() < 1e-3)
        for place, size in zip(positions, shape, strict=True)
    )


def _interpolate(values: torch.Tensor, places: torch.Tensor, axis: int) -> torch.Tensor:
    """Linear interpolation along one axis; beyond the first and last plane the edge value holds."""
    size = values.shape[axis]
    places = places.to(values.device).clamp(0, size - 1)
    low = places.floor().long().clamp(max=max(size - 2, 0))
    high = (low + 1).clamp(max=size - 1)
    weight = (places - low).to(values.dtype)
    weight = weight.view([-1 if i == axis else 1 for i in range(values.ndim)])
    return torch.lerp(values.index_select(axis, low), values.index_select(axis, high), weight)
