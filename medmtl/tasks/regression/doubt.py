"""Values of a regression target that look like something else than measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np

FAR = 10.0  # median absolute deviations
SENTINELS = frozenset((-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0))


def repeated_extremes(values: Iterable[float]) -> dict[float, int]:
    """The lowest or highest value, where it may stand for "missing" -> how often it stands there.

    It stands twice or more, and is a customary code (such as -1 where all others are not negative, or 999), or lies
    farther from the next value than all others from each other.
    """
    counts = Counter(values)
    ordered = sorted(counts)
    found: dict[float, int] = {}
    for extreme, rest in ((ordered[0], ordered[1:]), (ordered[-1], ordered[:-1])) if len(ordered) > 3 else ():
        gap = min(abs(rest[0] - extreme), abs(rest[-1] - extreme))
        coded = extreme in SENTINELS and (extreme > 0 or rest[0] >= 0)
        if counts[extreme] > 1 and (coded or gap > rest[-1] - rest[0]):
            found[extreme] = counts[extreme]
    return found


def shares_for_percentages(values: Collection[float], bounds: tuple[float, float] | None) -> bool:
    """Whether percentages are declared, by a range of 0 to 100, and no value is above 1."""
    return bounds == (0, 100) and len(values) > 0 and max(values) <= 1


def outliers(values: Mapping[str, float]) -> dict[str, float]:
    """Case id -> distance from the median in median absolute deviations, where it is more than 10."""
    if not values:
        return {}
    array = np.array(list(values.values()))
    distance = np.abs(array - np.median(array))
    deviation = float(np.median(distance))
    if deviation == 0:  # more than half of the values are equal: nothing says what is far
        return {}
    return {name: float(far) for name, far in zip(values, distance / deviation, strict=True) if far > FAR}
