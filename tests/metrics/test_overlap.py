"""Dice, volume and outcome of masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from medmtl.metrics.overlap import dice, outcome, volume_ml

EMPTY = np.zeros((3, 4, 5), dtype=bool)
FULL = np.ones((3, 4, 5), dtype=bool)


@pytest.mark.parametrize("seed", range(5))
def test_dice_is_monais(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, truth = random.random((2, 4, 5, 6)) < 0.3
    expected = compute_dice(torch.from_numpy(predicted)[None, None], torch.from_numpy(truth)[None, None])
    assert dice(predicted, truth) == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("predicted", "truth", "name", "score"),
    [
        (EMPTY, EMPTY, "true_negative", None),
        (EMPTY, FULL, "missed", 0.0),
        (FULL, EMPTY, "false", 0.0),
        (FULL, FULL, "both", 1.0),
    ],
)
def test_empty_masks(predicted: np.ndarray, truth: np.ndarray, name: str, score: float | None) -> None:
    assert outcome(predicted, truth) == name
    assert dice(predicted, truth) == score


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        dice(FULL, FULL[:1])


def test_volume_is_in_ml() -> None:
    assert volume_ml(FULL, (2.0, 0.5, 10.0)) == pytest.approx(60 * 10 / 1000)
    assert volume_ml(EMPTY, (2.0, 0.5, 10.0)) == 0.0
