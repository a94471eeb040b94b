from __future__ import annotations

import numpy as np
import pytest
import torch
from torchjd.aggregation import PCD

from tests.weighting.jacobians import seeded
from tests.weighting.test_gradient_kinds import make

LOSSES = {"a": 1.0, "b": 1.0, "c": 1.0}


def test_it_is_that_of_torchjd_over_several_steps() -> None:
    own, theirs = make("pcd", ("a", "b", "c"), progress=0.1, decay=0.9), PCD(tau=0.1, beta=0.9, eps=0.0)
    for seed in range(6):
        rows = seeded(seed, 3, 6)
        found = own.weigh(rows @ rows.T, LOSSES) @ rows  # type: ignore[operator]
        np.testing.assert_allclose(found, theirs(torch.from_numpy(rows)).numpy(), rtol=1e-6, atol=1e-9)


def test_the_named_task_leads_and_the_first_present_one_without_it() -> None:
    rows = np.array([[1.0, 0], [-1, 0.1], [0, 2]])
    method = make("pcd", ("a", "b", "c"), first="b", progress=0.0)
    direction = method.weigh(rows @ rows.T, LOSSES) @ rows  # type: ignore[operator]
    assert np.linalg.norm(direction) == pytest.approx(np.linalg.norm(rows[1]))
    assert (rows @ direction >= -1e-9).all()
    without = method.weigh(rows[[0, 2]] @ rows[[0, 2]].T, {"a": 1.0, "c": 1.0})  # type: ignore[operator]
    np.testing.assert_allclose(without, [1, 0], atol=1e-9)


def test_promises_that_contradict_each_other_are_dropped() -> None:
    rows = np.array([[0.0, 1], [1, 0], [-1, 0]])
    found = make("pcd", ("a", "b", "c"), progress=0.5).weigh(rows @ rows.T, LOSSES)  # type: ignore[operator]
    np.testing.assert_allclose(found, [1, 0, 0], atol=1e-9)


def test_a_leader_that_is_no_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weighting\.first 'd' is no task"):
        make("pcd", ("a", "b"), first="d")
