"""The baseline of a proportional hazards model: how the hazard grows for a case of average risk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from medmtl.metrics.intervals import BoolArray, FloatArray

MAX_LOG = 600.0  # of an increment; sums of its exponential stay finite


@dataclass(frozen=True)
class CumulativeHazard:
    """A cumulative hazard that starts at 0 and grows at given times only.

    Attributes:
        centre: log risk of the cases that it belongs to; one of log risk r has exp(r - centre) times as much.
        times: where it grows, increasing.
        values: its value from that time on.
    """

    centre: float
    times: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time_N: FloatArray) -> FloatArray:
        """Its values (N,) at times."""
        return np.concatenate([[0.0], self.values])[np.searchsorted(self.times, time_N, side="right")]

    def until(self, time: float) -> CumulativeHazard:
        """The part up to a time."""
        kept = sum(t <= time for t in self.times)
        return CumulativeHazard(self.centre, self.times[:kept], self.values[:kept])

    def to_json(self) -> dict[str, Any]:
        """As stored in a checkpoint."""
        return {"centre": self.centre, "times": list(self.times), "values": list(self.values)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> CumulativeHazard:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: if it is something else.
        """
        times, values = (tuple(float(value) for value in stored[key]) for key in ("times", "values"))
        numbers = (float(stored["centre"]), *times, *values)
        if (
            stored.keys() != {"centre", "times", "values"}
            or len(times) != len(values)
            or not np.isfinite(numbers).all()
        ):
            raise ValueError("not a cumulative hazard")
        if any(np.diff([0.0, *times]) <= 0) or any(np.diff([0.0, *values]) < 0):
            raise ValueError("a cumulative hazard does not fall")
        return cls(numbers[0], times, values)


def breslow(log_risk_N: FloatArray, time_N: FloatArray, event_N: BoolArray) -> CumulativeHazard:
    """Breslow's estimate (Breslow 1974, https://doi.org/10.2307/2529620).

    ::

        H(t) = sum over event times t_i <= t of d_i / sum over the cases at risk at t_i of exp(r_j - mean of r)

    Args:
        log_risk_N: r, finite.
        time_N: of the event or of the end of follow-up.
        event_N: whether it is an event.
    """
    centre = float(log_risk_N.mean())
    times_T, deaths_T = np.unique(time_N[event_N], return_counts=True)
    at_risk_T = np.array([logsumexp(log_risk_N[time_N >= time] - centre) for time in times_T])
    steps_T = np.exp(np.minimum(np.log(deaths_T) - at_risk_T, MAX_LOG))
    return CumulativeHazard(centre, tuple(times_T.tolist()), tuple(np.cumsum(steps_T).tolist()))
