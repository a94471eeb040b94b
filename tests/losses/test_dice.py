"""Soft Dice from sums."""

from __future__ import annotations

import torch

from medmtl.losses.dice import soft_dice_loss


def test_hand_computed_dice_is_averaged_over_channels() -> None:
    # one voxel of smoothing: (2 * 3 + 1) / (4 + 6 + 1) and (0 + 1) / (2 + 5 + 1)
    loss = soft_dice_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[4.0, 2.0]]), torch.tensor([[6.0, 5.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.5 * (1 - 7 / 11) + 0.5 * (1 - 1 / 8)]))


def test_an_empty_channel_costs_what_is_predicted_and_nothing_if_nothing_is() -> None:
    nothing = torch.zeros(2, 1)
    predicted = torch.tensor([[0.0], [50.0]])
    torch.testing.assert_close(soft_dice_loss(nothing, predicted, nothing), torch.tensor([0.0, 50 / 51]))
