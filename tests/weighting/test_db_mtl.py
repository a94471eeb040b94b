from __future__ import annotations

import numpy as np
import pytest

from tests.weighting.test_gradient_kinds import make


def test_the_first_step_by_hand() -> None:
    method = make("db_mtl", ("a", "b"))
    weights = method.weigh(np.diag([9.0, 4.0]), {"a": 0.5, "b": 4.0})  # type: ignore[operator]
    # d log L has the norms 3 / 0.5 = 6 and 2 / 4 = 0.5; both are brought to 6
    np.testing.assert_allclose(weights * [3, 2], [6, 6], rtol=1e-6)


def test_the_norms_are_averaged_over_steps_without_a_bias() -> None:
    method = make("db_mtl", ("a", "b"), decay=0.5)
    for square in (1.0, 9.0):
        weights = method.weigh(np.diag([square, 4.0]), {"a": 1.0, "b": 1.0})  # type: ignore[operator]
    # (0.25 * 1 + 0.5 * 3) / 0.75 = 7 / 3 against 2
    np.testing.assert_allclose(weights, [1, 7 / 6], rtol=1e-6)


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_loss_that_is_not_positive_makes_no_weight_infinite(loss: float) -> None:
    method = make("db_mtl", ("a", "b"))
    assert method.positive_losses
    weights = method.weigh(np.eye(2), {"a": loss, "b": 1.0})  # type: ignore[operator]
    assert np.isfinite(weights).all() and (weights > 0).all()
