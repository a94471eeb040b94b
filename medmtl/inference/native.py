"""From probabilities at working spacing to labels on the scan's own grid, a few planes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medmtl.data.geometry import canonical_grid, restore
from medmtl.data.resampling import axes_between, blended, in_plane
from medmtl.data.volume import Grid, Volume

SLAB_VALUES = 2_000_000  # probabilities on the scan's grid in memory at once: 8 MB in fp32, which a cache may hold


class NativeAnswer:
    """A voxel task's answer on the scan's own grid, from probabilities that come plane by plane.

    Probabilities are interpolated linearly (never the labels), a slab of native planes at a time, so that all classes
    are never held at full size; each slab is decided at once. Of what came, one plane is kept.

    Args:
        grid: of the probabilities, RAS-ordered; its axes are those of the canonical native grid, scaled and shifted.
        native: grid of the scan's file.
        decide: probabilities or values (K, d, H, W) -> labels or values (d, H, W).
    """

    def __init__(self, grid: Grid, native: Grid, decide: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._native = native
        self._decide = decide
        axes = axes_between(grid, canonical_grid(native))
        assert axes is not None, "a working grid has the directions of its scan"
        self._axes = axes
        self._places = axes[0].places.clamp(0, axes[0].source - 1)
        self._came = 0
        self._done = 0
        self._last: torch.Tensor | None = None
        self._found: npt.NDArray[Any] | None = None

    def take(self, probability_KDHW: torch.Tensor) -> None:
        """The next planes, of the grid's height and width; what they complete is decided."""
        start = self._came
        self._came = stop = start + probability_KDHW.shape[1]
        ready = self._axes[0].target
        if stop < self._axes[0].source:
            ready = int((self._places <= stop - 1).sum())
        classes, (_, height, width) = probability_KDHW.shape[0], self._shape
        step = max(1, SLAB_VALUES // (classes * height * width))
        while self._done < ready:
            self._slab(probability_KDHW, start, self._done, min(ready, self._done + step))
        self._last = probability_KDHW[:, -1:].clone()

    @property
    def _shape(self) -> tuple[int, int, int]:
        x, y, z = self._axes
        return x.target, y.target, z.target

    def _slab(self, probability_KDHW: torch.Tensor, start: int, first: int, end: int) -> None:
        """Decide native planes from ``first`` to before ``end``; the given planes begin at ``start``."""
        places = self._places[first:end]
        low, high = int(places[0].floor()), int(places[-1].ceil())
        if low < start:
            assert self._last is not None and low == start - 1
            planes = torch.cat([self._last, probability_KDHW[:, : max(0, high + 1 - start)]], dim=1)
        else:
            planes = probability_KDHW[:, low - start : high + 1 - start]
        if not self._axes[0].is_same:
            planes = blended(planes, places - low, 1)
        decided = self._decide(in_plane(planes, self._axes)).cpu().numpy()
        if self._found is None:
            self._found = np.empty(self._shape, decided.dtype)
        self._found[first:end] = decided
        self._done = end

    def volume(self) -> Volume:
        """The answer with the native shape and affine, once all planes came."""
        assert self._found is not None and self._done == self._shape[0], "planes are missing"
        return Volume(restore(self._found, self._native), self._native)
