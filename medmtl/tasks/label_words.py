"""What the labels of a cohort hold, in words: so that a reader of the check sees whether they were read as meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

WHOLE_FROM = 1000.0  # from here on digits behind the point say nothing


def plain(value: float) -> str:
    """A number with four digits that count, and never fewer than its whole part has."""
    return f"{value:.0f}" if abs(value) >= WHOLE_FROM else f"{value:.4g}"


def lowest_to_highest(values: Sequence[float]) -> str:
    """``0.12 to 0.88``."""
    return f"{plain(min(values))} to {plain(max(values))}"


def middle(values: Sequence[float]) -> str:
    """``median 0.45``."""
    return f"median {plain(float(np.median(values)))}"


def counted(truths: Sequence[str], names: Iterable[str]) -> str:
    """``benign: 5, malignant: 6``, in the order of the names; a class may be called 1, so that a blank would not do."""
    return ", ".join(f"{name}: {truths.count(name)}" for name in names)
