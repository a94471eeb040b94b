from __future__ import annotations

import numpy as np
import pytest

from tests.weighting.test_gradient_kinds import make

GRAM = np.diag([9.0, 1.0])


def test_the_first_update_by_hand() -> None:
    method = make("gradnorm", ("a", "b"), alpha=0.0, lr=0.1)
    used = method.weigh(GRAM, {"a": 1.0, "b": 1.0})  # type: ignore[operator]
    np.testing.assert_array_equal(used, [1, 1])
    # norms 3 and 1, level 2: the first is too large and falls by 0.15, the second rises by 0.05; the sum is 2 again
    expected = np.array([0.85, 1.05]) * 2 / 1.9
    np.testing.assert_allclose(list(method.extra_state()["weights"].values()), expected)


def test_no_weight_is_lost_for_good() -> None:
    method = make("gradnorm", ("a", "b"), alpha=0.0, lr=1.0)
    method.weigh(np.diag([1e4, 1e-4]), {"a": 1.0, "b": 1.0})  # type: ignore[operator]
    weights = method.extra_state()["weights"]
    assert 0 < weights["a"] < 0.01 and sum(weights.values()) == pytest.approx(2)


def test_weighted_norms_become_alike() -> None:
    method = make("gradnorm", ("a", "b"), alpha=0.0)
    for _ in range(500):
        used = method.weigh(GRAM, {"a": 1.0, "b": 1.0})  # type: ignore[operator]
    assert used[0] * 3 == pytest.approx(used[1] * 1, rel=0.1)


def test_a_task_that_learns_slowly_gets_more() -> None:
    method = make("gradnorm", ("a", "b"), alpha=1.0)
    for _ in range(200):
        used = method.weigh(np.eye(2), {"a": 0.9, "b": 0.3})  # type: ignore[operator]
    assert used[0] == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize(("scale", "first"), [("prior", {"a": 1.0, "b": 1.0}), ("none", {"a": 4.0})])
def test_progress_is_counted_from_the_prior_or_from_the_first_loss(scale: str, first: dict[str, float]) -> None:
    method = make("gradnorm", ("a", "b"), loss_scale=scale)
    for loss in (4.0, 2.0):
        method.weigh(np.eye(1), {"a": loss})  # type: ignore[operator]
        method.after_step({"a": loss}, {}, 0)
    assert method.extra_state()["first"] == first


def test_a_ramp_does_not_make_the_first_loss_small() -> None:
    """Otherwise the task seems to lose nothing for good, and takes all the weight."""
    ramped, plain = (make("gradnorm", ("a", "b"), loss_scale="none") for _ in range(2))
    for step in range(300):
        for method, share in ((ramped, min(1.0, (step + 1) / 100)), (plain, 1.0)):
            method.weigh(np.diag([1.0, share**2]), {"a": 2.0, "b": 2.0 * share})  # type: ignore[operator]
            method.after_step({"a": 2.0, "b": 2.0}, {}, 0)
    assert ramped.extra_state()["first"] == plain.extra_state()["first"] == {"a": 2.0, "b": 2.0}
    assert ramped.extra_state()["weights"]["b"] == pytest.approx(plain.extra_state()["weights"]["b"], abs=0.1)


def test_it_needs_positive_losses_and_looks_at_the_last_stage() -> None:
    method = make("gradnorm")
    assert method.positive_losses
    assert method.options.gradient == "last_stage"  # type: ignore[attr-defined]
