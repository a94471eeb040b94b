"""Gaussian likelihood of values whose variance is predicted too."""

from __future__ import annotations

import torch

BETA = 0.5
MAX_LOG_VARIANCE = 10.0


def bounded_log_variance(raw_B: torch.Tensor) -> torch.Tensor:
    """The log-variance that a head's raw output stands for: fp32, kept within -10 to 10.

    On a scale on which the targets' variance is 1 that is a standard deviation between 0.0067 and 148 of theirs: no
    case's gradient can be without bound, and no variance can overflow.
    """
    return raw_B.float().clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)


def beta_nll_loss(
    mean_B: torch.Tensor, log_variance_B: torch.Tensor, target_B: torch.Tensor, beta: float = BETA
) -> torch.Tensor:
    """Negative log-likelihood of a normal distribution, each sample weighted by its own variance to the power beta.

    ::

        L = sg[v^beta] * (log v + (y - m)^2 / v) / 2

    with mean m, variance v, target y, and sg the value without its gradient. Seitzer et al. 2022, "On the pitfalls of
    heteroscedastic uncertainty estimation with probabilistic neural networks", https://arxiv.org/abs/2203.09168: with
    beta 0 (the plain likelihood) samples that are predicted badly soon count for nothing, because their variance is
    large; with beta 1 the mean is learned as by squared errors; 0.5 is the paper's advice. The constant log(2 pi) / 2
    is left out. The loss may be zero or negative.

    Args:
        mean_B: of any floating type; computed in fp32.
        log_variance_B: log v; see :func:`bounded_log_variance`.
        target_B: fp32.
        beta: 0 to 1.

    Returns:
        Loss per sample, shape (B,), fp32.
    """
    log_variance_B = log_variance_B.float()
    residual_B = target_B - mean_B.float()
    likelihood_B = (log_variance_B + residual_B**2 * torch.exp(-log_variance_B)) / 2
    return torch.exp(beta * log_variance_B).detach() * likelihood_B
