"""Case-level cross-entropy, and the loss of the best constant answer."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import log_loss
from torch.nn import functional

from medmtl.losses.cross_entropy import best_constant_cross_entropy, best_constant_distribution, cross_entropy_loss


def test_mean_is_sklearns_log_loss() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 2, 1, 0])
    expected = log_loss(target.numpy(), logits.double().softmax(1).numpy())
    assert cross_entropy_loss(logits, target).mean() == pytest.approx(expected, rel=1e-6)


def test_a_sample_does_not_depend_on_its_neighbours_even_with_weights() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 1, 0])
    weights = torch.tensor([0.5, 3.0])
    together = cross_entropy_loss(logits, target, weights)
    alone = torch.cat([cross_entropy_loss(logits[i : i + 1], target[i : i + 1], weights) for i in range(4)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, weights[target] * cross_entropy_loss(logits, target))


def test_without_weights_the_constant_is_the_prior_and_its_loss_the_entropy() -> None:
    assert best_constant_distribution([3, 1], [1.0, 1.0]) == [0.75, 0.25]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert best_constant_cross_entropy([3, 1], [1.0, 1.0]) == pytest.approx(entropy)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothing_is_torchs_and_a_weight_is_the_samples(smoothing: float) -> None:
    logits = 3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 2, 1, 0])
    expected = functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(cross_entropy_loss(logits, target, None, smoothing), expected, rtol=1e-6, atol=1e-6)
    weights = torch.tensor([0.5, 3.0, 1.0])
    found = cross_entropy_loss(logits, target, weights, smoothing)
    torch.testing.assert_close(found, weights[target] * expected)
    # by hand, for the first sample
    log_p = logits[0].log_softmax(0)
    by_hand = -((1 - smoothing) * log_p[0] + smoothing * log_p.mean())
    torch.testing.assert_close(found[0], 0.5 * by_hand)


def test_smoothing_leaves_balanced_classes_balanced() -> None:
    assert best_constant_distribution([9, 1], [10 / 18, 5.0], 0.2) == pytest.approx([0.5, 0.5])
    assert best_constant_distribution([9, 1], [1.0, 1.0], 0.2) == pytest.approx([0.82, 0.18])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (20 / 36, 20 / 9, 20 / 15), (1.0, 5.0, 2.0)])
def test_no_constant_distribution_does_better(weights: tuple[float, ...], smoothing: float) -> None:
    counts = np.array([12, 3, 5])
    target = torch.repeat_interleave(torch.arange(3), torch.from_numpy(counts))

    def loss(z: npt.NDArray[np.float64]) -> float:
        logits = torch.from_numpy(z).float().expand(20, 3)
        return float(cross_entropy_loss(logits, target, torch.tensor(weights), smoothing).double().mean())

    best = best_constant_distribution(counts.tolist(), weights, smoothing)
    value = best_constant_cross_entropy(counts.tolist(), weights, smoothing)
    assert value == pytest.approx(loss(np.log(best)), rel=1e-6)
    found = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8})
    assert value <= found.fun + 1e-6
    assert best == pytest.approx((np.exp(found.x) / np.exp(found.x).sum()).tolist(), abs=5e-3)
