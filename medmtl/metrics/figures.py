"""What a task wants drawn in the report, as data; the report decides how it looks."""

from __future__ import annotations

from dataclasses import dataclass

from medmtl.metrics.calibration import CalibrationPoint


@dataclass(frozen=True)
class ScatterFigure:
    """Predicted against observed values, with the line of identity."""

    title: str
    observed: tuple[float, ...]
    predicted: tuple[float, ...]
    unit: str | None = None


@dataclass(frozen=True)
class BlandAltmanFigure:
    """Predicted - observed against the mean of both, with the bias and the 95 % limits of agreement.

    Attributes:
        title: what is compared.
        means: (observed + predicted) / 2 of each case.
        differences: predicted - observed of each case.
        lines: the lower limit, the bias and the upper limit; the bias alone for a single case.
        unit: of all of them.
    """

    title: str
    means: tuple[float, ...]
    differences: tuple[float, ...]
    lines: tuple[float, ...]
    unit: str | None = None


@dataclass(frozen=True)
class RocFigure:
    """One or more ROC curves: (label, false positive rates, true positive rates)."""

    title: str
    curves: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]


@dataclass(frozen=True)
class StripFigure:
    """Per-case values in named groups, such as Dice per label."""

    title: str
    groups: tuple[tuple[str, tuple[float, ...]], ...]
    unit: str | None = None


@dataclass(frozen=True)
class CalibrationFigure:
    """Observed share against predicted probability: (label, points) per curve."""

    title: str
    curves: tuple[tuple[str, tuple[CalibrationPoint, ...]], ...]


@dataclass(frozen=True)
class KaplanMeierFigure:
    """Probability to be without the event over time, in steps: (label, times from 0, values from then on) per group.

    Attributes:
        title: what is compared.
        groups: the curves.
        followed: per group the time of each of its cases, of the event or of the end of follow-up; without them
            numbers at risk are not shown.
        column: whose unit the times have.
    """

    title: str
    groups: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    followed: tuple[tuple[float, ...], ...] = ()
    column: str | None = None


@dataclass(frozen=True)
class FrocFigure:
    """Sensitivity against false positives per case; nothing is drawn without a point."""

    title: str
    false_per_case: tuple[float, ...]
    sensitivities: tuple[float, ...]


Figure = (
    ScatterFigure | BlandAltmanFigure | RocFigure | StripFigure | CalibrationFigure | KaplanMeierFigure | FrocFigure
)
