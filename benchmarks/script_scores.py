"""How the plain script scores: masks on the scan's own grid, classes by AUC, values by their skill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, ResampleToMatch
from sklearn.metrics import roc_auc_score

Labels = npt.NDArray[np.int64]


class NativeLabels:
    """Brings probabilities to the grid of a label file."""

    def __init__(self) -> None:
        self._read = LoadImage(reader="NibabelReader", ensure_channel_first=True)
        self._resample = ResampleToMatch(mode="bilinear", padding_mode="border")

    def __call__(self, probability_KDHW: torch.Tensor, affine: torch.Tensor, file: Path) -> tuple[Labels, Labels]:
        """The likeliest label of every voxel of a label file, and the file's labels.

        Args:
            probability_KDHW: of the background and each label.
            affine: 4x4, of its grid.
            file: of the labels.
        """
        truth = self._read(file)
        there = self._resample(MetaTensor(probability_KDHW, affine=affine), truth)
        return there.argmax(0).numpy().astype(np.int64), np.rint(truth[0].numpy()).astype(np.int64)


def mask_dice(found: Labels, truth: Labels, labels: int) -> float | None:
    """Mean Dice of the labels: 0 where only one of two masks is empty, and a label is left out where both are."""
    each = []
    for value in range(1, labels + 1):
        predicted, reference = found == value, truth == value
        total = int(predicted.sum() + reference.sum())
        if total:
            each.append(2 * int((predicted & reference).sum()) / total)
    return fmean(each) if each else None


def auc(positive: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve; None where there is one class only."""
    return float(roc_auc_score(positive, scores)) if len(set(positive)) == 2 else None


def skill(observed: Sequence[float], predicted: Sequence[float], middle: float) -> float:
    """1 - MAE / MAE of the training median."""
    truth = np.array(observed)
    return float(1 - np.abs(truth - np.array(predicted)).mean() / np.abs(truth - middle).mean())
