"""The part of a scan to look at where not all of it fits."""

from __future__ import annotations

import torch

from medmtl.data.crop import Triple, kept_inside, window_around
from medmtl.data.lesion import bounding_box

RANGE_SHARE = 0.1  # of the range of grey values, above which a voxel is no air


def foreground_window(image_CDHW: torch.Tensor, shape: Triple) -> tuple[Triple, float]:
    """Where a window around the body begins, and the share of the body that it leaves out.

    The body is what is brighter, in the first channel, than the 0.5th percentile by a tenth of the way to the 99.5th.
    The window lies around the middle of the box around it, inside the scan.

    Args:
        image_CDHW: normalised; at least as large as the window along each axis.
        shape: voxels of the window.
    """
    channel = image_CDHW[0].float()
    sample = channel.flatten()[:: max(1, channel.numel() // 1_000_000)]
    low, high = torch.quantile(sample, torch.tensor([0.005, 0.995])).tolist()
    body = (channel > low + RANGE_SHARE * (high - low)).numpy()
    size = tuple(channel.shape)
    box = bounding_box(body)
    if box is None:
        return kept_inside(window_around((size[0] // 2, size[1] // 2, size[2] // 2), shape), size, shape), 0.0
    x, y, z = ((part.start + part.stop) // 2 for part in box)
    start = kept_inside(window_around((x, y, z), shape), size, shape)
    seen = body[tuple(slice(begin, begin + n) for begin, n in zip(start, shape, strict=True))]
    return start, 1 - float(seen.sum()) / float(body.sum())
