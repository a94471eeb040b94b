"""The focal loss of classes against MONAI, and the constant answer that has the least of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.losses.focal_loss import FocalLoss
from scipy.optimize import minimize

from medmtl.losses.cross_entropy import best_constant_cross_entropy, best_constant_distribution, cross_entropy_loss
from medmtl.losses.focal import best_constant_focal, focal_loss

TARGET = torch.tensor([0, 1, 2, 2, 1, 0])
WEIGHTS = torch.tensor([0.5, 3.0, 1.0])


def logits(scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_values_and_gradients_are_monais(gamma: float, weights: torch.Tensor | None) -> None:
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    reference = FocalLoss(gamma=gamma, to_onehot_y=True, use_softmax=True, weight=weights, reduction="none")
    expected = reference(theirs, TARGET[:, None]).sum(1)
    found = focal_loss(ours, TARGET, gamma, weights)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.autograd.backward(found.sum())
    torch.autograd.backward(expected.sum())
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_at_gamma_0_it_is_cross_entropy() -> None:
    torch.testing.assert_close(
        focal_loss(logits(), TARGET, 0.0, WEIGHTS), cross_entropy_loss(logits(), TARGET, WEIGHTS)
    )
    for counts, weights in (([12, 3, 5], [1.0, 5.0, 2.0]), ([1, 9999], [1.0, 1.0])):
        best, value = best_constant_focal(counts, weights, 0.0)
        assert best == pytest.approx(best_constant_distribution(counts, weights), abs=1e-9)
        assert value == pytest.approx(best_constant_cross_entropy(counts, weights))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_answers_have_finite_losses_and_gradients(gamma: float) -> None:
    certain = 200 * torch.eye(3)
    for target in (torch.arange(3), torch.tensor([1, 2, 0])):
        wanted = certain.clone().requires_grad_()
        loss = focal_loss(wanted.bfloat16(), target, gamma)
        assert loss.dtype == torch.float32
        torch.autograd.backward(loss.sum())
        assert torch.isfinite(loss).all()
        assert wanted.grad is not None
        assert torch.isfinite(wanted.grad).all()


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(
    ("counts", "weights"),
    [([3, 1], [1.0, 1.0]), ([12, 3, 5], [1.0, 5.0, 2.0]), ([900, 1, 99], [1.0] * 3), ([7, 7, 7, 7], [1.0] * 4)],
)
def test_no_constant_distribution_does_better(counts: Sequence[int], weights: Sequence[float], gamma: float) -> None:
    mass_K = np.multiply(counts, weights)

    def loss(z: np.ndarray) -> float:
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        return float(-(mass_K * (1 - p) ** gamma * np.log(np.maximum(p, 1e-300))).sum() / np.sum(counts))

    best, value = best_constant_focal(counts, weights, gamma)
    assert sum(best) == pytest.approx(1)
    assert value == pytest.approx(loss(np.log(best)), rel=1e-9)
    random = np.random.default_rng(0)
    for start in (np.log(mass_K), np.zeros(len(counts)), *random.normal(size=(3, len(counts)))):
        found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000})
        assert value <= found.fun + 1e-9
    assert value == pytest.approx(found.fun, rel=1e-5)
    assert value < loss(np.log(mass_K)) or len(set(mass_K.tolist())) == 1
