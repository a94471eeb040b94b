"""Boxes around lesions: from a label array, their overlap, and several answers made one.

A box is six numbers, the three lower corners and then the three upper ones, in voxels of an array. Voxel i spans i to
i + 1, so that a lesion of one voxel has a box of volume 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

SAME_LESION = 0.2  # intersection over union above which two boxes are one lesion's; MONAI's LUNA16 example has 0.22


def boxes_in(label_DHW: npt.NDArray[Any], components: bool) -> FloatArray:
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
    found = [place for place in ndimage.find_objects(array) if place is not None]
    return np.array(
        [[*(p.start for p in place), *(p.stop for p in place)] for place in found], dtype=np.float64
    ).reshape(-1, 6)


def box_iou(a_N6: FloatArray, b_M6: FloatArray) -> FloatArray:
    """Intersection over union of every pair, (N, M); 0 where both are empty."""
    low = np.maximum(a_N6[:, None, :3], b_M6[None, :, :3])
    high = np.minimum(a_N6[:, None, 3:], b_M6[None, :, 3:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    union = _volume(a_N6)[:, None] + _volume(b_M6)[None] - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def _volume(box_N6: FloatArray) -> FloatArray:
    return np.asarray(np.clip(box_N6[:, 3:] - box_N6[:, :3], 0, None).prod(axis=1))


def fused(answers: Sequence[FloatArray]) -> FloatArray:
    """What several models say of one case, as one answer.

    From the highest score down, a box joins the box of a higher score that it overlaps most, if their intersection over
    union exceeds ``SAME_LESION``; else it starts a lesion of its own. A lesion's corners are the mean of its boxes'
    weighted by their scores. Its score is the mean over *all* models of their highest score for it, so that a lesion
    which only one of four models sees has a quarter of that one's score. After the weighted box clustering of Jaeger et
    al. 2018, https://arxiv.org/abs/1811.08661, without its weights for overlap and for the place in the window.

    Args:
        answers: per model rows (n, 7), six corners and a score.

    Returns:
        Rows (m, 7), the highest score first. Of one model its own rows, and rows that are not finite as they are.
    """
    rows = np.concatenate([*answers, np.empty((0, 7))])
    if len(answers) == 1 or not np.isfinite(rows).all():
        return rows
    model = np.concatenate([np.full(len(found), index) for index, found in enumerate(answers)])
    order = np.argsort(-rows[:, 6], kind="stable")
    leaders: list[int] = []
    members: list[list[int]] = []
    for index in order:
        overlap = box_iou(rows[None, index, :6], rows[leaders, :6])[0] if leaders else np.empty(0)
        if overlap.size and overlap.max() > SAME_LESION:
            members[int(overlap.argmax())].append(int(index))
        else:
            leaders.append(int(index))
            members.append([int(index)])
    lesions = []
    for cluster in members:
        best = {model[index]: rows[index, 6] for index in reversed(cluster)}
        corners = np.average(rows[cluster, :6], axis=0, weights=rows[cluster, 6])
        lesions.append([*corners, sum(best.values()) / len(answers)])
    found = np.array(lesions, dtype=np.float64).reshape(-1, 7)
    return found[np.argsort(-found[:, 6], kind="stable")]
