"""Two tasks with a non-convex front: where following a method's direction ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmtl.weighting.base import Trained
from medmtl.weighting.jacobian import gram_of, row_of
from medmtl.weighting.quadratic import minimum_norm, unit_rows
from tests.weighting.test_gradient_kinds import make


def losses(point: torch.Tensor) -> dict[str, torch.Tensor]:
    """1 - exp(-|x -/+ a|^2), a = 1 / sqrt(2): the example of Fonseca and Fleming 1995, whose front is concave."""
    centre = torch.full_like(point, 0.5)
    return {name: 1 - torch.exp(-(point - sign * centre).square().sum()) for name, sign in (("a", 1), ("b", -1))}


def shortest(point: nn.Parameter) -> float:
    """Length of the shortest convex combination of the gradients; 0 where no direction improves both."""
    gram = gram_of([row_of(loss, [point], keep=False) for loss in losses(point).values()])
    units, lengths = unit_rows(gram)
    return float(torch.linalg.norm(torch.from_numpy(units * lengths @ minimum_norm(units, lengths))))


@pytest.mark.parametrize("start", [(0.9, -0.7), (-0.2, 1.1)])
@pytest.mark.parametrize("name", ["mgda", "cagrad", "nash", "upgrad", "fairgrad", "dualproj"])
def test_it_ends_where_no_direction_improves_both(name: str, start: tuple[float, float]) -> None:
    point = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    method, before = make(name, ("a", "b")), shortest(nn.Parameter(torch.tensor(start, dtype=torch.float64)))
    for _ in range(250):
        point.grad = None
        method.backward(losses(point), trained=Trained([point]))
        assert point.grad is not None
        with torch.no_grad():
            point -= 0.4 * point.grad
    assert before > 0.1
    assert shortest(point) < 1e-3
