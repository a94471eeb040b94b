"""Survival curves of groups: of the event, and of being followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medmtl.metrics.intervals import BoolArray, FloatArray

AT_RISK_SHARE = 0.1  # of the cases; with fewer the curve rests on a handful of patients


@dataclass(frozen=True)
class StepCurve:
    """A probability that starts at 1 and changes at given times only.

    Attributes:
        times: where it changes, increasing.
        values: its value from that time on.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time_N: FloatArray, *, before: bool = False) -> FloatArray:
        """Its values (N,) at times; ``before`` gives those just before."""
        place_N = np.searchsorted(self.times, time_N, side="left" if before else "right")
        return np.concatenate([[1.0], self.values])[place_N]

    def to_json(self) -> dict[str, list[float]]:
        """As stored in a plan."""
        return {"times": list(self.times), "values": list(self.values)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StepCurve:
        """What :meth:`to_json` gave."""
        return cls(tuple(stored["times"]), tuple(stored["values"]))


def kaplan_meier(time_N: FloatArray, event_N: BoolArray) -> StepCurve:
    """Probability to be without the event at a time (Kaplan and Meier 1958, https://doi.org/10.2307/2281868).

    ::

        S(t) = product over event times t_i <= t of (1 - d_i / n_i)

    Who is censored at a time is still at risk then.

    Args:
        time_N: time of the event or of the end of follow-up.
        event_N: whether it is an event.
    """
    times_T = np.unique(time_N[event_N])
    at_risk_T = _from(time_N, times_T)
    events_T = at_risk_T - _from(time_N, times_T, event_N)
    return _curve(times_T, events_T, at_risk_T)


def censoring_curve(time_N: FloatArray, event_N: BoolArray) -> StepCurve:
    """Probability to be still followed at a time: Kaplan-Meier with the censored cases as those with the event.

    At a time that has both, events come first: who has the event then is no longer at risk of being censored.
    """
    times_T = np.unique(time_N[~event_N])
    at_risk_T = _from(time_N, times_T, event_N)
    censored_T = at_risk_T - np.array([np.count_nonzero(time_N > time) for time in times_T])
    return _curve(times_T, censored_T, at_risk_T)


def followed_to(time_N: FloatArray) -> float:
    """The last time at which at least a tenth of the cases, all of one cohort, are still at risk."""
    count = int(np.ceil(AT_RISK_SHARE * len(time_N)))
    return float(np.sort(time_N)[-count])


def _from(time_N: FloatArray, times_T: FloatArray, event_N: BoolArray | None = None) -> FloatArray:
    """Cases at risk at each time; with ``event_N`` without those who have the event at it."""
    at_risk_T = [np.count_nonzero(time_N >= time) for time in times_T]
    if event_N is not None:
        at_risk_T = [n - np.count_nonzero(event_N & (time_N == t)) for n, t in zip(at_risk_T, times_T, strict=True)]
    return np.array(at_risk_T, dtype=np.float64)


def _curve(times_T: FloatArray, leaving_T: FloatArray, at_risk_T: FloatArray) -> StepCurve:
    values_T = np.cumprod(1 - leaving_T / at_risk_T)
    return StepCurve(tuple(times_T.tolist()), tuple(values_T.tolist()))
