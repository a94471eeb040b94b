"""Overlap of two masks, and which of them hold anything at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Outcome = Literal["both", "true_negative", "missed", "false"]


def outcome(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Outcome:
    """Which of two masks is not empty.

    Args:
        predicted: predicted mask, any shape.
        truth: reference mask of the same shape.

    Returns:
        ``both`` hold voxels; neither does, ``true_negative``; only the reference does, ``missed``; only the
        prediction does, ``false``.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks must have one shape, got {predicted.shape} and {truth.shape}")
    if truth.any():
        return "both" if predicted.any() else "missed"
    return "false" if predicted.any() else "true_negative"


def dice(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float | None:
    """Dice coefficient 2 |A and B| / (|A| + |B|), in 0 to 1; None where both masks are empty.

    Args:
        predicted: predicted mask, any shape.
        truth: reference mask of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if outcome(predicted, truth) == "true_negative":
        return None
    overlap = np.count_nonzero(predicted & truth)
    return float(2 * overlap / (np.count_nonzero(predicted) + np.count_nonzero(truth)))


def volume_ml(mask: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Volume of a mask in ml, from the voxel spacing in mm."""
    return float(np.count_nonzero(mask) * math.prod(spacing) / 1000)
