"""Cox's partial likelihood against two libraries, Efron's formula by hand, and extremes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter

from medmtl.losses.cox import constant_cox_loss, efron_terms
from tests.metrics.survival_cohort import follow_up

with warnings.catch_warnings():
    # torchsurv scripts a function with torch.jit, which newer torch warns of
    warnings.simplefilter("ignore")
    from torchsurv.loss.cox import neg_partial_log_likelihood

with_ties = pytest.mark.parametrize("ties", [True, False], ids=["ties", "no ties"])
SEEDS = range(4)


def cohort(seed: int, ties: bool, n: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    time_N, event_N, risk_N = follow_up(seed, n, whole_days=ties)
    assert (len(np.unique(time_N[event_N])) < event_N.sum()) == ties
    return torch.from_numpy(risk_N).double(), torch.from_numpy(time_N).double(), torch.from_numpy(event_N)


def other_library(risk_N: torch.Tensor, time_N: torch.Tensor, event_N: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        # it tells of ties
        warnings.simplefilter("ignore")
        loss: torch.Tensor = neg_partial_log_likelihood(risk_N, event_N, time_N, ties_method="efron", reduction="sum")
    return loss


@with_ties
@pytest.mark.parametrize("seed", SEEDS)
def test_loss_and_gradient_are_those_of_torchsurv(seed: int, ties: bool) -> None:
    risk_N, time_N, event_N = cohort(seed, ties)
    own_N, theirs_N = risk_N.clone().requires_grad_(), risk_N.clone().requires_grad_()
    loss, expected = efron_terms(own_N, time_N, event_N).sum(), other_library(theirs_N, time_N, event_N)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # torchsurv computes in fp32, whatever it is given
    (gradient,) = torch.autograd.grad(loss, own_N)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, theirs_N)[0], rtol=1e-6, atol=1e-6)


@with_ties
@pytest.mark.parametrize("seed", SEEDS)
def test_loss_at_lifelines_coefficients_is_its_likelihood_and_has_no_slope(seed: int, ties: bool) -> None:
    risk_N, time_N, event_N = cohort(seed, ties)
    values_NP = np.stack([risk_N.numpy(), np.random.default_rng(seed + 100).normal(size=len(risk_N))], axis=1)
    frame = pd.DataFrame(values_NP, columns=["a", "b"]).assign(time=time_N.numpy(), event=event_N.numpy())
    fitter = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-12})
    weights = torch.tensor(fitter.params_.to_numpy(), requires_grad=True)
    loss = efron_terms(torch.from_numpy(values_NP) @ weights, time_N, event_N).sum()
    assert loss.item() == pytest.approx(-fitter.log_likelihood_, abs=1e-6)
    (slope,) = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-6)


def test_ties_are_efrons_by_hand() -> None:
    risk_N = torch.tensor([0.2, -0.5, 1.0, 0.3], dtype=torch.float64)
    a, b, c, d = risk_N.exp().tolist()
    # the first two have the event at 5, the third later, and the fourth is censored at 5
    term_N = efron_terms(risk_N, torch.tensor([5.0, 5.0, 9.0, 5.0]), torch.tensor([1, 1, 1, 0]))
    everybody = a + b + c + d
    expected = math.log(everybody) + math.log(everybody - (a + b) / 2) - 0.2 + 0.5
    assert term_N[:2].sum().item() == pytest.approx(expected)
    assert term_N[2:].tolist() == [0.0, 0.0]


def test_terms_stand_where_their_cases_stand() -> None:
    risk_N, time_N, event_N = cohort(0, ties=False)
    order_N = torch.randperm(len(risk_N), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        efron_terms(risk_N[order_N], time_N[order_N], event_N[order_N]), efron_terms(risk_N, time_N, event_N)[order_N]
    )
    assert bool((efron_terms(risk_N, time_N, event_N)[~event_N] == 0).all())


@pytest.mark.parametrize("events", [[], [0], [1], [0, 0]])
def test_nobody_to_compare_with_gives_exactly_nothing(events: list[int]) -> None:
    risk_N = torch.arange(len(events), dtype=torch.float64, requires_grad=True)
    loss: Any = efron_terms(risk_N, torch.ones(len(events)), torch.tensor(events, dtype=torch.bool)).sum()
    assert loss.item() == 0
    torch.autograd.backward(loss)
    assert risk_N.grad is not None and risk_N.grad.tolist() == [0.0] * len(events)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_risks_stay_finite(scale: float) -> None:
    risk_N, time_N, event_N = cohort(1, ties=True)
    risk_N = (scale * risk_N).requires_grad_()
    loss = efron_terms(risk_N, time_N, event_N).sum()
    (gradient,) = torch.autograd.grad(loss, risk_N)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    # nobody's weight in a denominator is above 1
    assert gradient.abs().max() <= event_N.sum()


@with_ties
def test_the_constant_loss_is_that_of_any_one_risk(ties: bool) -> None:
    _, time_N, event_N = cohort(2, ties)
    constant = constant_cox_loss(time_N, event_N)
    assert constant == pytest.approx(efron_terms(torch.full_like(time_N, 7.0), time_N, event_N).mean().item())
    if not ties:
        at_risk = [(time_N >= time).sum().item() for time in time_N[event_N]]
        assert constant == pytest.approx(sum(map(math.log, at_risk)) / len(time_N))
