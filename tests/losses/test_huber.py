"""Huber loss against hand-computed values."""

from __future__ import annotations

import pytest
import torch

from medmtl.losses.huber import constant_huber, huber_loss


def test_quadratic_inside_delta_and_linear_outside() -> None:
    predicted = torch.tensor([0.5, 3.0, -2.0])
    loss = huber_loss(predicted, torch.zeros(3), delta=1.0)
    torch.testing.assert_close(loss, torch.tensor([0.125, 2.5, 1.5]))
    wide = huber_loss(predicted, torch.zeros(3), delta=2.0)
    torch.testing.assert_close(wide, torch.tensor([0.125, 4.0, 2.0]))


def test_half_precision_is_computed_in_fp32() -> None:
    assert huber_loss(torch.tensor([0.5]).bfloat16(), torch.zeros(1)).dtype == torch.float32


def test_loss_of_a_constant_is_the_mean() -> None:
    assert constant_huber([-1.0, 0.0, 4.0], 0.0) == pytest.approx((0.5 + 0.0 + 3.5) / 3)
