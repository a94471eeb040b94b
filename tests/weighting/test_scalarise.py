from __future__ import annotations

import math

import pytest
import torch

from medmtl.weighting.scalarise import read_positive, softmax


def test_softmax_is_torchs_and_cannot_overflow() -> None:
    logits = {"organ": 1000.0, "grade": 999.0, "age": -1000.0}
    expected = torch.softmax(torch.tensor(list(logits.values()), dtype=torch.float64), 0).tolist()
    assert list(softmax(logits).values()) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, -0.5, 1e-30])
def test_a_loss_that_is_not_above_zero_has_a_finite_logarithm(value: float) -> None:
    found = read_positive({"organ": torch.tensor(value), "grade": torch.tensor(0.5)})
    assert found == {"organ": 1e-6, "grade": 0.5}
    assert math.isfinite(math.log(found["organ"]))
