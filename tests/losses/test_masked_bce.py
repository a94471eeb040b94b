"""Masked binary cross-entropy by brute force, and that its best constant is the best."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from medmtl.losses.masked_bce import best_constant_findings, masked_bce_loss

TARGET = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 1.0, -1.0], [0.0, 0.0, 1.0], [1.0, -1.0, 0.0], [-1.0, -1.0, -1.0]])


def test_it_is_the_mean_over_what_is_known() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    expected = []
    for row, known in zip(logits.double().numpy(), TARGET.numpy(), strict=True):
        terms = [-np.log(expit(z if y == 1 else -z)) for z, y in zip(row, known, strict=True) if y >= 0]
        expected.append(np.mean(terms) if terms else 0.0)
    assert masked_bce_loss(logits, TARGET).tolist() == pytest.approx(expected, rel=1e-6)


def test_what_is_not_known_gets_no_gradient() -> None:
    logits = torch.full((5, 3), 1e4, requires_grad=True)
    (gradient,) = torch.autograd.grad(masked_bce_loss(logits, TARGET).sum(), logits)
    assert torch.isfinite(gradient).all()
    assert gradient[TARGET < 0].count_nonzero() == 0
    assert gradient[TARGET == 0].count_nonzero() == 4


def test_no_constant_is_better_than_the_best() -> None:
    known = TARGET[:4]
    shares, scale = best_constant_findings(known.double().numpy())

    def loss(logits: np.ndarray) -> float:
        return float(masked_bce_loss(torch.tensor(logits, dtype=torch.float32).expand(4, 3), known).double().mean())

    found = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9, "maxiter": 2000})
    assert scale == pytest.approx(found.fun, abs=1e-5)
    assert shares == pytest.approx(expit(found.x), abs=2e-3)
