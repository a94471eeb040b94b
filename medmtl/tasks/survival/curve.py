"""A predicted survival curve up to the horizon, and what is read from it.

Hazards of different folds belong to different intervals and cannot be averaged; the curves can, because they all stand
on one grid: :data:`GRID` equal steps from 0 to the declared horizon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmtl.metrics.intervals import FloatArray
from medmtl.tasks.base import Cell, Result

GRID = 100


def grid_times(horizon: float) -> FloatArray:
    """The times of the grid (GRID + 1,), from 0 to the horizon."""
    return np.linspace(0.0, horizon, GRID + 1)


def lived_share(cuts_K: FloatArray, horizon: float) -> FloatArray:
    """The share of each interval that has been lived through at each time of the grid after 0, (K, GRID).

    With hazards h_k that are constant within their intervals, log S(t) = sum_k share_k(t) log(1 - h_k). After the last
    cut the curve stays as it is. Kvamme and Borgan 2021, https://doi.org/10.1007/s10985-021-09532-6, call this
    constant hazard interpolation.
    """
    starts_K = np.concatenate([[0.0], cuts_K[:-1]])
    lived_KG = (grid_times(horizon)[1:] - starts_K[:, None]) / (cuts_K - starts_K)[:, None]
    return np.asarray(np.clip(lived_KG, 0.0, 1.0))


def share_lost(survival_G: FloatArray) -> float:
    """1 - restricted mean survival time / horizon, in 0 to 1, of a curve on the grid without its 1 at 0.

    The share of the time up to the horizon that is expected to be lost to the event. It orders patients whose curves
    cross, and a difference of 0.1 means a tenth of the horizon. Royston and Parmar 2013,
    https://doi.org/10.1186/1471-2288-13-152.
    """
    return float(1 - np.trapezoid(np.concatenate([[1.0], survival_G])) / GRID)


def median_time(survival_G: FloatArray, horizon: float) -> float | None:
    """Time at which the curve falls to one half, linear between the grid's times; None if not by the horizon."""
    curve = np.concatenate([[1.0], survival_G])
    below = np.flatnonzero(curve <= 0.5)
    if len(below) == 0:
        return None
    place = int(below[0])
    before, after = curve[place - 1], curve[place]
    return float((place - 1 + (before - 0.5) / (before - after)) * horizon / GRID)


def named(horizon: float) -> str:
    """A horizon as columns and metrics carry it: ``1825``, ``1.5``."""
    return str(int(horizon)) if float(horizon).is_integer() else str(horizon)


@dataclass(frozen=True)
class SurvivalResult(Result):
    """How a patient is expected to fare up to the horizon.

    Attributes:
        risk: share of the time up to the horizon that is expected to be lost to the event; higher is an earlier event.
        median_time: time by which the event has come with probability one half; None if that is after the horizon.
        survival: probability to reach the horizon without the event.
        horizon: the declared time, in the unit of the table.
        curve: probability to be without the event at each of the grid's times after 0.
    """

    risk: float = math.nan
    median_time: float | None = None
    survival: float = math.nan
    horizon: float = math.nan
    curve: tuple[float, ...] = ()

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME`` (the risk), ``NAME_median_time`` and ``NAME_s_HORIZON``."""
        return {
            name: self.risk,
            f"{name}_median_time": self.median_time,
            f"{name}_s_{named(self.horizon)}": self.survival,
        }


def result_of(survival_G: Sequence[float], horizon: float) -> SurvivalResult:
    """The answer that a curve on the grid gives."""
    curve_G = np.array(survival_G, dtype=np.float64)
    return SurvivalResult(
        risk=share_lost(curve_G),
        median_time=median_time(curve_G, horizon),
        survival=float(curve_G[-1]),
        horizon=horizon,
        curve=tuple(curve_G.tolist()),
    )
