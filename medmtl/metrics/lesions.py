"""Lesions of two masks, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import generate_binary_structure, label

from medmtl.metrics.intervals import BoolArray

FOUND_ABOVE = 0.1  # intersection over union


@dataclass(frozen=True)
class LesionScores:
    """How many lesions were found.

    Attributes:
        reference: lesions of the reference.
        found: of them, those that are matched.
        false: lesions of the prediction that are not.
    """

    reference: int
    found: int
    false: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the reference's lesions that is found; None where it has none."""
        return self.found / self.reference if self.reference else None

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN); None where neither mask holds a lesion."""
        total = self.reference + self.found + self.false
        return 2 * self.found / total if total else None


def lesion_scores(predicted: BoolArray, truth: BoolArray) -> LesionScores:
    """Match the lesions of a prediction with those of a reference.

    A lesion is a connected component, where voxels that share a face, an edge or a corner touch (26 neighbours). Pairs
    of a predicted and a reference lesion whose intersection over union exceeds 0.1 are matched one to one, those of the
    largest first; of equal ones the pair whose voxels come first. So one prediction that covers two lesions finds one
    of them, and a lesion in two pieces has one that is false.

    Greedy one-to-one matching is that of object detection (Maier-Hein et al. 2024,
    https://doi.org/10.1038/s41592-023-02151-z); 0.1 is the bound of Jaeger et al. 2018,
    https://arxiv.org/abs/1811.08661, for lesions in three dimensions, where finding them matters more than their exact
    outline. No lesion is left out for its size.

    Args:
        predicted: predicted mask, any number of axes.
        truth: reference mask of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks must have one shape, got {predicted.shape} and {truth.shape}")
    found_ids, n_found = _components(predicted)
    truth_ids, n_truth = _components(truth)
    both = predicted & truth
    pairs, overlaps = np.unique(np.stack([found_ids[both], truth_ids[both]]), axis=1, return_counts=True)
    found_sizes, truth_sizes = np.bincount(found_ids.ravel()), np.bincount(truth_ids.ravel())
    union = found_sizes[pairs[0]] + truth_sizes[pairs[1]] - overlaps
    iou = overlaps / union
    taken_found: set[int] = set()
    taken_truth: set[int] = set()
    for index in np.argsort(-iou, kind="stable"):
        one, other = int(pairs[0, index]), int(pairs[1, index])
        if iou[index] > FOUND_ABOVE and one not in taken_found and other not in taken_truth:
            taken_found.add(one)
            taken_truth.add(other)
    return LesionScores(n_truth, len(taken_truth), n_found - len(taken_found))


def _components(mask: BoolArray) -> tuple[npt.NDArray[np.integer[Any]], int]:
    ids, count = label(mask, generate_binary_structure(mask.ndim, mask.ndim))
    return ids, int(count)
