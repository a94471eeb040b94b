"""Follow-up times that look as if they were not all in one unit, or not in the unit of the horizon."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medmtl.tasks.label_words import lowest_to_highest, plain

RATIOS = {30.44: "days and months", 365.25: "days and years"}
WITHIN = 1.6  # of a ratio: groups in two units need not have equal medians
GAP = 3.0  # between the groups
SHARE = 0.05  # of the cases in the smaller group


def mixed_units(times: Iterable[float]) -> str | None:
    """The units that the times seem to be in, where they fall into two groups whose medians differ so; else None.

    The groups are on the two sides of the widest gap, in ratio, and each holds two cases or more.
    """
    ordered = np.sort(np.array(list(times), dtype=np.float64))
    smallest = max(2, int(np.ceil(SHARE * len(ordered))))
    places = np.arange(smallest, len(ordered) - smallest + 1)
    if len(places) == 0:
        return None
    gaps = ordered[places] / ordered[places - 1]
    place = int(places[np.argmax(gaps)])
    if gaps.max() < GAP:
        return None
    ratio = float(np.median(ordered[place:]) / np.median(ordered[:place]))
    return next((units for known, units in RATIOS.items() if known / WITHIN < ratio < known * WITHIN), None)


def strange_horizon(times: Iterable[float], horizon: float) -> str | None:
    """How the horizon lies beside all times, where it is not among them; else None."""
    ordered = sorted(times)
    if not ordered or ordered[0] <= horizon <= ordered[-1]:
        return None
    return f"times {lowest_to_highest(ordered)}, horizon {plain(horizon)}"
