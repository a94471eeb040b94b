"""Windows of a scan."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from monai.data.utils import dense_patch_slices

from medmtl.data.crop import Triple, window
from medmtl.inference.foreground import foreground_window

logger = logging.getLogger(__name__)

Window = tuple[slice, ...]
"""Where a window lies in a scan, per axis."""

TOLD_LOSS = 0.01  # of the foreground, from which it is worth a word


def pad(image_CDHW: torch.Tensor, shape: Triple) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Pad with 0 (the mean after normalisation) to at least ``shape``, the case in the middle."""
    missing = [max(0, wanted - size) for wanted, size in zip(shape, image_CDHW.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    if not any(missing):
        return image_CDHW, tuple(before)
    pads = [amount for axis in (2, 1, 0) for amount in (before[axis], missing[axis] - before[axis])]
    return torch.nn.functional.pad(image_CDHW, pads), tuple(before)


def windows_over(size: Sequence[int], shape: Triple, overlap: float) -> list[Window]:
    """Windows that cover a scan, each next one covering a share of the one before."""
    interval = tuple(max(1, int(n * (1 - overlap))) if m > n else n for n, m in zip(shape, size, strict=True))
    return [tuple(window) for window in dense_patch_slices(tuple(size), shape, interval, return_slice=True)]


def cropped(image_CDHW: torch.Tensor, shape: Triple, tasks: Sequence[str], held: Sequence[bool] = ()) -> torch.Tensor:
    """A scan that is larger than any training case, cropped to the plan's shape around its foreground; said aloud.

    Args:
        image_CDHW: normalised, not padded yet: along axes on which it is smaller it is padded as by :func:`pad`.
        shape: voxels of the window.
        tasks: who sees it.
        held: whether the case has each channel; the foreground is that of the first one that it has.
    """
    channel = next((number for number, there in enumerate(held) if there), 0)
    start, lost = foreground_window(image_CDHW[channel : channel + 1], shape)
    logger.warning(
        "a case of %s voxels is larger than any training case; a window of %s around its foreground is used for %s%s",
        tuple(image_CDHW.shape[1:]),
        shape,
        ", ".join(tasks),
        f", which leaves out {lost:.0%} of it" if lost >= TOLD_LOSS else "",
    )
    return torch.from_numpy(window(image_CDHW.numpy(), start, shape))
