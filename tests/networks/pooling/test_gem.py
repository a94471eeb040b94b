from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pmean

from medmtl.networks.pooling.gem import FLOOR, GeneralisedMean, generalised_mean
from tests.networks.pooling.contract import PoolingContract, a_map


class TestGeneralisedMean(PoolingContract):
    cls = GeneralisedMean


def test_the_exponent_starts_at_three_and_never_falls_below_one() -> None:
    pooling = GeneralisedMean(1)
    assert pooling.exponent.item() == pytest.approx(3, rel=1e-6)
    with torch.no_grad():
        pooling.raw.fill_(-100)
    assert pooling.exponent.item() == 1
    # so that the optimiser does not decay it
    assert pooling.raw.ndim == 1


def test_by_hand() -> None:
    whole = torch.tensor([1.0, 2.0, 3.0, -5.0]).reshape(1, 1, 1, 2, 2)
    # what is negative counts as nothing: ((1 + 8 + 27 + 0) / 4) ^ (1/3)
    assert GeneralisedMean(1)(whole).item() == pytest.approx(9 ** (1 / 3), rel=1e-6)
    padded = torch.nn.functional.pad(whole, (0, 2))
    assert GeneralisedMean(1)(padded).item() == pytest.approx(4.5 ** (1 / 3), rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 3.0, 8.0])
def test_it_is_the_power_mean_of_scipy(exponent: float) -> None:
    whole = 10 * a_map(seed=2).abs()
    values = whole.double().clamp(min=FLOOR).flatten(2).numpy()
    found = generalised_mean(whole, torch.tensor([exponent]))
    np.testing.assert_allclose(found.numpy(), pmean(values, exponent, axis=2), rtol=1e-5)


def test_an_exponent_of_one_gives_the_mean_and_a_large_one_nearly_the_maximum() -> None:
    whole = 50 * a_map(seed=3).abs() + 0.1
    torch.testing.assert_close(generalised_mean(whole, torch.tensor([1.0])), whole.mean((2, 3, 4)))
    last = whole.mean((2, 3, 4))
    for exponent in (2.0, 10.0, 1e3, 1e5):
        found = generalised_mean(whole, torch.tensor([exponent]))
        assert (found > last).all()
        last = found
    torch.testing.assert_close(last, whole.amax((2, 3, 4)), rtol=2e-4, atol=0)


def test_the_gradient_is_that_of_finite_differences() -> None:
    whole = (a_map(batch=1, channels=2).abs() + 0.5).requires_grad_()
    exponent = torch.tensor([2.5], requires_grad=True)
    torch.autograd.backward(generalised_mean(whole, exponent).sum())

    def at(change: float) -> float:
        values = whole.detach().double().flatten(2).numpy()
        return float(pmean(values, 2.5 + change, axis=2).sum())

    assert float(exponent.grad) == pytest.approx((at(1e-4) - at(-1e-4)) / 2e-4, rel=1e-4)  # type: ignore[arg-type]
    values = whole.detach()
    expected = values**1.5 / 24 * generalised_mean(values, torch.tensor([2.5]))[..., None, None, None] ** -1.5
    torch.testing.assert_close(whole.grad, expected)
