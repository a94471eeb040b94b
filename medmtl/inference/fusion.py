"""What several models say of one case, as one answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medmtl.metrics.box_overlap import box_iou
from medmtl.metrics.intervals import FloatArray
from medmtl.tasks.box_task import SAME_LESION


def fused(answers: Sequence[FloatArray]) -> FloatArray:
    """Lesions from the boxes of several models.

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
