from __future__ import annotations

import numpy as np
import pytest
import torch
from torchjd.aggregation import MGDAWeighting

from medmtl.weighting.mgda import Mgda
from tests.weighting.jacobians import seeded


def weigh(rows: np.ndarray) -> np.ndarray:
    method = Mgda(Mgda.Options(kind="mgda"), [str(index) for index in range(len(rows))])
    return method.weigh(rows @ rows.T, {})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 0], [0, 1]], [0.5, 0.5]),
        ([[2.0, 0], [0, 1]], [0.2, 0.8]),
        ([[1.0, 0], [3, 1]], [1, 0]),
        ([[1.0, 0], [-3, 0]], [0.75, 0.25]),
    ],
)
def test_two_tasks_by_hand(rows: list[list[float]], expected: list[float]) -> None:
    np.testing.assert_allclose(weigh(np.array(rows)) / 2, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_where_the_steps_of_torchjd_end(seed: int) -> None:
    rows = seeded(seed, 3)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    theirs = MGDAWeighting(epsilon=1e-12, max_iters=20000)(torch.from_numpy(rows @ rows.T)).numpy()
    found = weigh(rows) @ rows / 3
    np.testing.assert_allclose(found, theirs @ rows, atol=2e-3)
    assert np.linalg.norm(found) <= np.linalg.norm(theirs @ rows) + 1e-12
