from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from monai.data import box_utils

from medmtl.metrics.box_overlap import box_iou


def random_boxes(count: int, seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 10, (count, 3))
    return np.concatenate([low, low + rng.uniform(1, 8, (count, 3))], axis=1)


def test_the_overlap_is_monais() -> None:
    a, b = random_boxes(12, 0), random_boxes(9, 1)
    expected = box_utils.box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(box_iou(a, b), expected, atol=1e-6)
    assert box_iou(a[:1], a[:1])[0, 0] == 1
    assert box_iou(np.zeros((1, 6)), np.zeros((1, 6)))[0, 0] == 0
    assert box_iou(a, np.empty((0, 6))).shape == (12, 0)
