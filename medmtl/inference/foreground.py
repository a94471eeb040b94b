"""The part of a scan to look at where not all of it fits."""

from __future__ import annotations

import numpy as np
import torch

from medmtl.data.crop import Triple, kept_inside, window_around
from medmtl.data.lesion import bounding_box
from medmtl.data.volume import spread_sample

PERCENTILE_VOXELS = 1_000_000  # of larger scans no more are sorted
RANGE_SHARE = 0.1  # of the range of grey values, above which a voxel is no air


def foreground_window(image_CDHW: torch.Tensor, shape: Triple) -> tuple[Triple, float]:
    """Where a window around the body begins, and the share of the body that it leaves out.

    The body is what is brighter, in the first channel, than the 0.5th percentile by a tenth of the way to the 99.5th.
    The window lies around the middle of the box around it, inside the scan; along axes on which the scan is smaller,
    the scan lies in the middle of the window.

    Args:
        image_CDHW: normalised, without padding, which would be taken for a body.
        shape: voxels of the window.
    """
    channel = image_CDHW[0].float()
    low, high = np.percentile(spread_sample(channel.numpy(), PERCENTILE_VOXELS), (0.5, 99.5))
    body = (channel > low + RANGE_SHARE * (high - low)).numpy()
    size = tuple(channel.shape)
    box = bounding_box(body)
    if box is None:
        return kept_inside(window_around((size[0] // 2, size[1] // 2, size[2] // 2), shape), size, shape), 0.0
    x, y, z = ((part.start + part.stop) // 2 for part in box)
    start = kept_inside(window_around((x, y, z), shape), size, shape)
    seen = body[tuple(slice(max(begin, 0), begin + n) for begin, n in zip(start, shape, strict=True))]
    return start, 1 - float(seen.sum()) / float(body.sum())
