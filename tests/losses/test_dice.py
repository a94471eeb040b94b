"""Soft Dice from sums."""

from __future__ import annotations

import torch

from medmtl.losses.dice import soft_dice_loss


def test_hand_computed_dice_is_averaged_over_channels() -> None:
    # channel 0: 2 * 3 / (4 + 6) = 0.6; channel 1: no overlap
    loss = soft_dice_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[4.0, 2.0]]), torch.tensor([[6.0, 5.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.5 * (1 - 0.6) + 0.5 * 1.0]), atol=1e-5, rtol=0)


def test_an_empty_channel_costs_all_if_predicted_and_nothing_if_not() -> None:
    nothing = torch.zeros(2, 1)
    predicted = torch.tensor([[0.0], [50.0]])
    torch.testing.assert_close(soft_dice_loss(nothing, predicted, nothing), torch.tensor([0.0, 1.0]))
