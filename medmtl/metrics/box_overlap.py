"""How far boxes overlap."""

from __future__ import annotations

import numpy as np

from medmtl.metrics.intervals import FloatArray, divide


def box_iou(a_N6: FloatArray, b_M6: FloatArray) -> FloatArray:
    """Intersection over union of every pair, (N, M); 0 where both are empty."""
    low = np.maximum(a_N6[:, None, :3], b_M6[None, :, :3])
    high = np.minimum(a_N6[:, None, 3:], b_M6[None, :, 3:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    union = _volume(a_N6)[:, None] + _volume(b_M6)[None] - inside
    return np.nan_to_num(divide(inside, union))


def _volume(box_N6: FloatArray) -> FloatArray:
    return np.asarray(np.clip(box_N6[:, 3:] - box_N6[:, :3], 0, None).prod(axis=1))
