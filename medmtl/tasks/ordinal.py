"""Ordinal: one of a list of ordered grades per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.losses.cross_entropy import best_constant_cross_entropy
from medmtl.losses.ordinal import best_constant_chain, chain_probabilities, corn_loss
from medmtl.metrics import ordinal, probabilities, ranking, regression
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.figures import Figure
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import Cell, Result, ScoredCase, Task
from medmtl.tasks.class_cell import read_class, refuse_absent, refuse_doubled
from medmtl.tasks.label_words import counted
from medmtl.tasks.pooled import PooledOptions, PooledTask
from medmtl.tasks.ranked import Ranked, ranked_figures


class OrdinalOptions(PooledOptions):
    """Options of an ordinal.

    Attributes:
        column: holds the grade as text; an empty cell means that the case is not labelled.
        grades: the grades, as written in the table, from the lowest to the highest.
    """

    column: str
    grades: tuple[str, ...] = Field(min_length=3)

    @field_validator("grades")
    @classmethod
    def _grades_differ(cls, grades: tuple[str, ...]) -> tuple[str, ...]:
        refuse_doubled(grades, "grades")
        return grades


@dataclass(frozen=True)
class OrdinalResult(Result):
    """A grade with the probability of each.

    Attributes:
        label: the median grade, the highest k with P(grade >= k) > 0.5.
        probabilities: grade -> probability, in the declared order.
    """

    label: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME`` and ``NAME_p_GRADE`` per grade."""
        return {name: self.label, **{f"{name}_p_{key}": value for key, value in self.probabilities.items()}}


class Ordinal(PooledTask):
    """One of several ordered grades per case, trained by CORN: each threshold on the cases that reached it.

    The grade that is called is the median of the predicted distribution, as in the paper (see
    :func:`medmtl.losses.ordinal.corn_loss`): it errs by the fewest grades, where the likeliest one would be right most
    often.
    """

    kind = "ordinal"
    Options = OrdinalOptions
    options: OrdinalOptions
    default_sensitivity = ("crop",)
    ranking_metric = "auc"

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the grade."""
        return (self.options.column,)

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`OrdinalResult.cells`."""
        return (self.name, *(f"{self.name}_p_{key}" for key in self.options.grades))

    def read(self, case: Case) -> str | None:
        """The grade of a case, exactly as declared; see :func:`medmtl.tasks.class_cell.read_class`."""
        return read_class(case.cells[self.options.column], self.options.grades, self.options.column)

    def fit(self, truths: Sequence[str]) -> dict[str, Any]:
        """Counts, the best constant chain, and its loss, the entropy of the grades' shares, as ``loss_scale``.

        Raises:
            CellError: B115 if a grade has no case.
        """
        grades = self.options.grades
        counts = [truths.count(name) for name in grades]
        refuse_absent(counts, grades, self.options.column)
        scale = best_constant_cross_entropy(counts, [1.0] * len(grades))
        return {"counts": counts, "constant": best_constant_chain(counts), "loss_scale": scale}

    def in_words(self, truths: Sequence[str]) -> str:
        """Cases of each grade."""
        return counted(truths, self.options.grades)

    def strata(self, truths: Mapping[str, Any]) -> dict[str, str]:
        """Each case's grade."""
        return dict(truths)

    def same_target(self, other: Task) -> None:
        """The grades must be the same, in the same order."""
        super().same_target(other)
        assert isinstance(other, Ordinal)
        mine, theirs = self.options.grades, other.options.grades
        if theirs != mine:
            raise ValueError(f"its grades are {', '.join(theirs)}, and the model's are {', '.join(mine)}")

    def encode(self, truth: str | None) -> torch.Tensor:
        """The index of the grade, int64, shape ()."""
        return torch.tensor(0 if truth is None else self.options.grades.index(truth))

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Conditional logits (B, K - 1); at first those of the grades' shares, whatever the image."""
        return self.pooled_head(spec, self.fitted["constant"])

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.ordinal.corn_loss`."""
        return corn_loss(output, target)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities of the grades (B, K)."""
        return chain_probabilities(output)

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        """Expected and true index of the grade."""
        return float(activation_K @ torch.arange(len(activation_K)).to(activation_K)), float(target)

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> OrdinalResult:
        """The median grade."""
        grades = self.options.grades
        above_T = activation_K.flip(0).cumsum(dim=0).flip(0)[1:]  # from the highest grade down, as in _above
        label = grades[int((above_T > 0.5).sum())]
        return OrdinalResult(label=label, probabilities=dict(zip(grades, activation_K.tolist(), strict=True)))

    def constant_result(self, truths: Sequence[str]) -> OrdinalResult:
        """The share of each grade as its probability."""
        return self.result(torch.tensor([truths.count(name) / len(truths) for name in self.options.grades]), {})

    def result_scores(self, result: Result, truth: Any) -> dict[str, float | None]:
        """``absolute_error``, in grades."""
        assert isinstance(result, OrdinalResult)
        grades = self.options.grades
        return {"absolute_error": float(abs(grades.index(result.label) - grades.index(truth)))}

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """Quadratic weighted kappa first: it is what graders are judged by, and counts an error by its size.

        ``mae`` is in grades; ``auc`` is the mean over the thresholds of the area of P(grade > k), which needs no
        decision; ``balanced_accuracy`` and ``brier`` take the grades as classes.
        """
        grade_N, probability_NK, fold_N = self._arrays(cases)
        patients = [case.patient for case in cases]
        n_grades = len(self.options.grades)
        called = [case.result.label for case in cases if isinstance(case.result, OrdinalResult)]
        called_N = np.array([self.options.grades.index(label) for label in called], dtype=np.intp)
        above_NT, score_NT = _above(grade_N, probability_NK)
        scores = probabilities.threshold_scores(grade_N, called_N, n_grades, patients)
        return {
            "kappa_quadratic": ordinal.kappa_quadratic(grade_N, called_N, n_grades, patients),
            "mae": regression.mae(grade_N.astype(np.float64), called_N.astype(np.float64), patients, "grades"),
            "auc": ranking.auc_mean(above_NT, score_NT, np.ones_like(above_NT), fold_N, patients),
            "balanced_accuracy": scores["balanced_accuracy"],
            "brier": probabilities.brier(grade_N, probability_NK, patients),
        }

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """A ROC curve per threshold and fold, and the calibration of each threshold where there are cases enough."""
        grade_N, probability_NK, _ = self._arrays(cases)
        above_NT, score_NT = _above(grade_N, probability_NK)
        return ranked_figures(
            self.name,
            [
                Ranked(f"above {name}", cases, above_NT[:, index], score_NT[:, index])
                for index, name in enumerate(self.options.grades[:-1])
            ],
        )

    def _arrays(
        self, cases: Sequence[ScoredCase]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        grades = self.options.grades
        grade_N = np.array([grades.index(case.truth) for case in cases], dtype=np.intp)
        rows = [list(case.result.probabilities.values()) for case in cases if isinstance(case.result, OrdinalResult)]
        fold_N = np.array([case.fold for case in cases], dtype=np.intp)
        return grade_N, np.array(rows, dtype=np.float64).reshape(-1, len(grades)), fold_N


def _above(
    grade_N: npt.NDArray[np.intp], probability_NK: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Per threshold k whether the grade is above it, and the probability of that, both (N, K - 1)."""
    thresholds = np.arange(probability_NK.shape[1] - 1)
    # summed from the highest grade down: 1 - the sum from below rounds small ones away, and falls below 0
    above_NK = np.cumsum(probability_NK[:, ::-1], axis=1)[:, ::-1]
    return grade_N[:, None] > thresholds, above_NK[:, 1:]
