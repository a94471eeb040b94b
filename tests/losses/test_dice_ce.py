"""Dice + cross-entropy against MONAI's DiceLoss and torch's cross-entropy."""

from __future__ import annotations

import pytest
import torch
from monai.losses.dice import DiceLoss
from torch.nn import functional

from medmtl.losses.dice_ce import dice_ce_loss

SHAPE = (5, 4, 6)


def sample(classes: int, batch: int = 3, absent: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(batch, classes, *SHAPE, generator=generator)
    target = torch.randint(classes, (batch, *SHAPE), generator=generator)
    if absent is not None:
        target[0][target[0] == absent] = 0
    return logits, target.to(torch.uint8)


def reference(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    dice = DiceLoss(
        include_background=False, softmax=True, to_onehot_y=True, reduction="none", smooth_nr=1, smooth_dr=1
    )(logits, target.long()[:, None])
    entropy = functional.cross_entropy(logits, target.long(), reduction="none")
    loss: torch.Tensor = dice.flatten(1).mean(1) + entropy.flatten(1).mean(1)
    return loss


@pytest.mark.parametrize(("classes", "absent"), [(2, None), (3, None), (4, 2), (2, 1)])
def test_values_and_gradients_are_those_of_monai_and_torch(classes: int, absent: int | None) -> None:
    logits, target = sample(classes, absent=absent)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = dice_ce_loss(ours, target), reference(theirs, target)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward(loss.sum())
    torch.autograd.backward(expected.sum())
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_perfect_prediction_costs_nothing() -> None:
    _, target = sample(3)
    logits = 60 * functional.one_hot(target.long(), 3).movedim(-1, 1).float()
    assert dice_ce_loss(logits, target).max() < 1e-5


def test_a_class_that_the_sample_lacks_is_emptied_faster_than_by_cross_entropy_alone() -> None:
    _, target = sample(2, batch=1, absent=1)
    logits = torch.zeros(1, 2, *SHAPE)
    logits[:, 0] = 3.0
    logits.requires_grad_()
    torch.autograd.backward(dice_ce_loss(logits, target))
    (alone,) = torch.autograd.grad(functional.cross_entropy(logits, target.long()), logits)
    assert logits.grad is not None
    assert (logits.grad[:, 1] > 1.5 * alone[:, 1]).all()


def test_half_precision_logits_are_computed_in_fp32() -> None:
    logits, target = sample(3)
    half = logits.bfloat16()
    torch.testing.assert_close(dice_ce_loss(half, target), dice_ce_loss(half.float(), target), rtol=0, atol=0)
