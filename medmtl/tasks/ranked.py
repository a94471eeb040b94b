"""What the report draws of a yes or no that a probability tells: a ROC curve, and how well it is calibrated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medmtl.metrics import calibration, ranking
from medmtl.metrics.figures import CalibrationFigure, Figure, RocFigure
from medmtl.tasks.base import ScoredCase


@dataclass(frozen=True)
class Ranked:
    """A yes or no of some cases: whether it is this class, above this grade, with this finding.

    Attributes:
        label: what a yes is called.
        cases: N of them.
        positive_N: whether it is so.
        score_N: its probability.
        calibrated_N: the same after calibration; None without one.
    """

    label: str
    cases: Sequence[ScoredCase]
    positive_N: npt.NDArray[np.bool_]
    score_N: npt.NDArray[np.float64]
    calibrated_N: npt.NDArray[np.float64] | None = None


def ranked_figures(name: str, parts: Iterable[Ranked]) -> tuple[Figure, ...]:
    """A ROC curve per part and fold that holds yes and no; the calibration of each part that has cases enough, if any.

    Args:
        name: of the task.
        parts: in the order of their curves.
    """
    curves: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = []
    reliability: list[tuple[str, tuple[calibration.CalibrationPoint, ...]]] = []
    for part in parts:
        fold_N = np.array([case.fold for case in part.cases], dtype=np.intp)
        folds = np.unique(fold_N)
        for fold in folds:
            rows = fold_N == fold
            rates = ranking.roc_curve_points(part.positive_N[rows], part.score_N[rows])
            curves.append((f"{part.label}, fold {fold}" if len(folds) > 1 else part.label, *rates))
        patients = [case.patient for case in part.cases]
        for suffix, answer_N in (("", part.score_N), (", calibrated", part.calibrated_N)):
            if answer_N is not None:
                points = calibration.calibration_curve(part.positive_N, answer_N, patients)
                reliability.append((part.label + suffix, points))
    roc = RocFigure(f"{name}: ROC", tuple(curve for curve in curves if curve[1]))
    drawn = tuple(curve for curve in reliability if curve[1])
    return (roc, CalibrationFigure(f"{name}: calibration", drawn)) if drawn else (roc,)
