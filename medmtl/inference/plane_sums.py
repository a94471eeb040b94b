"""Windows summed into planes, of which only those are held that a window can still reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import EllipsisType

import torch
from monai.data.utils import compute_importance_map

from medmtl.data.crop import Triple
from medmtl.inference.windows import Window

GAUSSIAN_SIGMA = 0.125  # of the window, as in nnU-Net


class PlaneSums:
    """Weighted sums over windows that come in order of their first plane.

    Args:
        shape: voxels of a window, of which the first is how many planes are held.
        size: voxels of the scan, no axis shorter.
    """

    def __init__(self, shape: Triple, size: Sequence[int]) -> None:
        self._weight = compute_importance_map(shape, mode="gaussian", sigma_scale=GAUSSIAN_SIGMA).clamp(min=1e-3)
        self._held = (shape[0], *size[1:])
        self._total = torch.zeros(self._held)
        self._sums: dict[str, torch.Tensor] = {}
        self._start = 0

    def add(self, place: Window, found: Mapping[str, torch.Tensor]) -> None:
        """What a window says, (K, ...) by task. Planes before its first one are let go."""
        self._move_to(place[0].start)
        part: tuple[slice | EllipsisType, ...] = (..., *place[1:])
        self._total[part] += self._weight
        for name, value in found.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros((len(value), *self._held))
            self._sums[name][part].addcmul_(value, self._weight)

    def final(self, begin: int) -> tuple[int, dict[str, torch.Tensor]]:
        """The first plane that is held, and the means (K, d, H, W) over it and all others before ``begin``.

        They can be had once, and are valid until the next window is added.
        """
        count = begin - self._start
        if count:
            for value in self._sums.values():
                value[:, :count] /= self._total[:count]
        return self._start, {name: value[:, :count] for name, value in self._sums.items()}

    def _move_to(self, start: int) -> None:
        count = start - self._start
        if count:
            for planes in (self._total, *self._sums.values()):
                _shift(planes, count)
        self._start = start


def _shift(planes: torch.Tensor, count: int) -> None:
    """Let go of the first planes, the third axis from the last; those that come are 0."""
    rest = max(planes.shape[-3] - count, 0)
    for first in range(0, rest, count):  # in parts that do not overlap, so that nothing is copied twice
        last = min(first + count, rest)
        planes[..., first:last, :, :] = planes[..., first + count : last + count, :, :]
    planes[..., rest:, :, :] = 0
