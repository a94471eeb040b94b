"""Small Jacobians for tests of solvers, named after what is hard about them; rows are tasks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def jacobians() -> dict[str, Array]:
    """Name -> (T, N)."""
    draw = np.random.default_rng(0).normal
    base = draw(size=(3, 6))
    opposed = np.array([[1.0, 0.1, 0], [-1.0, 0.2, 0.1], [0.1, -0.5, 0.3]])
    return {
        "two": np.array([[1.0, 0], [-0.5, 1]]),
        "agreeing": np.abs(base),
        "random": base,
        "opposed": opposed,
        "tiny": 1e-12 * opposed,
        "huge": 1e12 * opposed,
        "badly scaled": opposed * np.array([[1.0], [1e-6], [1e3]]),
        "rank two": np.array([[1.0, 0, 0], [0, 1, 0], [-1, -0.5, 0], [0.3, 0.4, 0]]),
        "same twice": np.array([[1.0, -1, 0.5], [1, -1, 0.5], [-0.5, 1, 0]]),
        "sixteen": draw(size=(16, 40)),
        "sixteen in four": draw(size=(16, 4)),
    }


def seeded(seed: int, tasks: int, size: int = 5) -> Array:
    """Random rows of random lengths."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(tasks, size)) * 10.0 ** generator.uniform(-2, 2, size=(tasks, 1))
