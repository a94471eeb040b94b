"""Case-level cross-entropy, and the loss of the best constant answer."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import log_loss

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


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (20 / 36, 20 / 9, 20 / 15), (1.0, 5.0, 2.0)])
def test_no_constant_distribution_does_better(weights: tuple[float, ...]) -> None:
    counts = np.array([12, 3, 5])

    def loss(z: npt.NDArray[np.float64]) -> float:
        log_p = z - np.log(np.exp(z).sum())
        return float(-(counts * np.array(weights) * log_p).sum() / counts.sum())

    found = minimize(loss, np.zeros(3), tol=1e-10)
    assert best_constant_cross_entropy(counts.tolist(), weights) == pytest.approx(found.fun, abs=1e-7)
    share = np.exp(found.x) / np.exp(found.x).sum()
    assert best_constant_distribution(counts.tolist(), weights) == pytest.approx(share.tolist(), abs=1e-3)
