"""Whether a value is like those that a training fold held."""

from __future__ import annotations

MARGIN = 0.1  # relative to the ends of the range: what a few cases happen to span is no border


def is_alike(value: float, low: float, high: float) -> bool:
    """Whether a value lies in the training range, or beyond it by no more than a tenth of its larger end.

    Args:
        value: NaN is not alike.
        low, high: the range, in the value's unit.
    """
    margin = MARGIN * max(abs(low), abs(high))
    return low - margin <= value <= high + margin
