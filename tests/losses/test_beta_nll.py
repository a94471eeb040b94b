"""The weighted Gaussian likelihood against torch's, its gradient, and its bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from medmtl.losses.beta_nll import beta_nll_loss, bounded_log_variance


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, target = torch.randn(3, 200, generator=generator)
    return mean, log_variance, target


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_it_is_torchs_likelihood_times_the_variance_to_the_power_beta(beta: float) -> None:
    mean, log_variance, target = batch()
    expected = functional.gaussian_nll_loss(mean, target, log_variance.exp(), reduction="none")
    torch.testing.assert_close(
        beta_nll_loss(mean, log_variance, target, beta), log_variance.exp() ** beta * expected, rtol=1e-5, atol=1e-6
    )


def test_the_gradient_of_the_mean_is_that_of_half_squared_errors_under_beta_one() -> None:
    mean, log_variance, target = batch()
    mean.requires_grad_()
    (gradient,) = torch.autograd.grad(beta_nll_loss(mean, log_variance, target, beta=1.0).sum(), mean)
    torch.testing.assert_close(gradient, (mean - target).detach(), rtol=1e-5, atol=1e-6)


def test_the_weight_has_no_gradient() -> None:
    mean, log_variance, target = batch()
    log_variance.requires_grad_()
    (gradient,) = torch.autograd.grad(beta_nll_loss(mean, log_variance, target).sum(), log_variance)
    variance = log_variance.detach().exp()
    expected = variance**0.5 * (1 - (target - mean) ** 2 / variance) / 2
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_it_may_be_negative_and_is_fp32() -> None:
    loss = beta_nll_loss(torch.zeros(1).bfloat16(), torch.full((1,), -2.0).bfloat16(), torch.zeros(1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-math.exp(-1.0))


def test_log_variances_are_bounded() -> None:
    found = bounded_log_variance(torch.tensor([-1e4, -3.0, 0.5, 1e4]))
    assert found.tolist() == [-10.0, -3.0, 0.5, 10.0]
