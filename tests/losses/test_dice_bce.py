"""Dice + binary cross-entropy of regions against MONAI's DiceLoss and torch."""

from __future__ import annotations

import torch
from monai.losses.dice import DiceLoss
from torch.nn import functional

from medmtl.losses.dice_bce import dice_bce_loss

# background and three labels; whole tumour, core, enhancing
MEMBERSHIP = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)


def test_values_and_gradients_are_those_of_monai_and_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(4, (2, 4, 5, 6), generator=generator, dtype=torch.uint8)
    regions = torch.stack([target >= 1, target >= 2, target == 3], dim=1).float()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = dice_bce_loss(ours, target, MEMBERSHIP)
    dice = DiceLoss(sigmoid=True, reduction="none", smooth_nr=1, smooth_dr=1)(theirs, regions).flatten(1).mean(1)
    entropy = functional.binary_cross_entropy_with_logits(theirs, regions, reduction="none").flatten(1).mean(1)
    expected = dice + entropy
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward(loss.sum())
    torch.autograd.backward(expected.sum())
    torch.testing.assert_close(ours.grad, theirs.grad)
