"""A step is as large as with equal weights, and no task weighs more because others are absent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmtl import weighting
from medmtl.weighting.base import Trained
from tests.weighting.test_gradient_kinds import KINDS, make

TASKS = ("a", "b", "c", "d")


def aggregate(name: str, rows: torch.Tensor) -> torch.Tensor:
    """What a fresh method fills for losses of 1 with these gradients."""
    shared = nn.Parameter(torch.zeros(rows.shape[1]))
    losses = {task: 1 + (shared * row).sum() for task, row in zip(TASKS, rows, strict=False)}
    torch.manual_seed(0)
    options = {"weights": dict.fromkeys(TASKS, 1.0)} if name == "fixed" else {}
    make(name, TASKS, **options).backward(losses, trained=Trained([shared], [shared]))
    assert shared.grad is not None
    return shared.grad


@pytest.mark.parametrize("present", [1, 2, 3, 4])
@pytest.mark.parametrize("name", weighting.kinds.names())
def test_a_task_weighs_1_however_many_others_are_present_at_right_angles(name: str, present: int) -> None:
    found = aggregate(name, torch.eye(4)[:present])
    if name == "rlw":
        assert found.sum() == pytest.approx(present)
    elif name == "pcd":
        assert found.norm() == pytest.approx(1)
        assert found[0] > 0.99
    else:
        torch.testing.assert_close(found, torch.eye(4)[:present].sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("present", [2, 3, 4])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "pcd"])
def test_equal_gradients_add_up(name: str, present: int) -> None:
    row = torch.tensor([3.0, -4.0])
    torch.testing.assert_close(aggregate(name, row.repeat(present, 1)), present * row, rtol=1e-5, atol=1e-5)
