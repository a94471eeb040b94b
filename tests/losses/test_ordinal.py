"""CORN by brute force: the likelihood of the chain, and the paper's conditional subsets."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medmtl.losses.ordinal import best_constant_chain, chain_probabilities, corn_loss


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(60, 4, generator=generator), torch.randint(5, (60,), generator=generator)


def test_it_is_the_chains_negative_log_likelihood() -> None:
    logits, target = batch()
    probability = chain_probabilities(logits)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(60))
    expected = -probability[torch.arange(60), target].log()
    torch.testing.assert_close(corn_loss(logits, target), expected, rtol=1e-5, atol=1e-6)


def test_its_sum_is_that_of_the_papers_conditional_subsets() -> None:
    logits, target = batch()
    total = torch.zeros(())
    for threshold in range(4):
        subset = target > threshold - 1
        label = (target[subset] > threshold).float()
        total += functional.binary_cross_entropy_with_logits(logits[subset, threshold], label, reduction="sum")
    torch.testing.assert_close(corn_loss(logits, target).sum(), total, rtol=1e-6, atol=1e-6)


def test_probabilities_of_being_above_never_rise_with_the_threshold() -> None:
    above = 1 - chain_probabilities(batch()[0]).cumsum(dim=1)[:, :-1]
    assert (above.diff(dim=1) <= 1e-6).all()
    extreme = chain_probabilities(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]))
    assert extreme.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_threshold_that_was_not_reached_gets_no_gradient() -> None:
    logits = batch()[0][:1].requires_grad_()
    (gradient,) = torch.autograd.grad(corn_loss(logits, torch.tensor([1])).sum(), logits)
    assert gradient[0, 2:].count_nonzero() == 0
    assert gradient[0, :2].count_nonzero() == 2


def test_the_best_constant_gives_each_grade_its_share() -> None:
    probability = chain_probabilities(torch.tensor([best_constant_chain([2, 3, 5])]))
    assert probability[0].tolist() == pytest.approx([0.2, 0.3, 0.5])
