"""Ordinal: one of a list of ordered grades per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch import nn

from medmtl.data.volume import Volume
from medmtl.losses.cross_entropy import best_constant_cross_entropy
from medmtl.losses.ordinal import best_constant_chain, chain_probabilities, corn_loss
from medmtl.metrics import ordinal, probabilities, ranking, regression
from medmtl.metrics.estimate import Estimate
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import Result, ScoredCase
from medmtl.tasks.class_cell import refuse_absent, refuse_doubled
from medmtl.tasks.one_of_several import OneOfSeveral, OneOfSeveralOptions, OneOfSeveralResult
from medmtl.tasks.ranked import Ranked


class OrdinalOptions(OneOfSeveralOptions):
    """Options of an ordinal.

    Attributes:
        column: holds the grade as text; an empty cell means that the case is not labelled.
        grades: the grades, as written in the table, from the lowest to the highest.
    """

    grades: tuple[str, ...] = Field(min_length=3)

    @field_validator("grades")
    @classmethod
    def _grades_differ(cls, grades: tuple[str, ...]) -> tuple[str, ...]:
        refuse_doubled(grades, "grades")
        return grades


class OrdinalResult(OneOfSeveralResult):
    """The median grade, the highest k with P(grade >= k) > 0.5, with the probability of each."""


class Ordinal(OneOfSeveral):
    """One of several ordered grades per case, trained by CORN: each threshold on the cases that reached it.

    The grade that is called is the median of the predicted distribution, as in the paper (see
    :func:`medmtl.losses.ordinal.corn_loss`): it errs by the fewest grades, where the likeliest one would be right most
    often.
    """

    kind = "ordinal"
    Options = OrdinalOptions
    options: OrdinalOptions
    classes_option = "grades"

    @property
    def classes(self) -> tuple[str, ...]:
        """The grades, from the lowest to the highest."""
        return self.options.grades

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

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Conditional logits (B, K - 1); at first those of the grades' shares, whatever the image."""
        return self.pooled_head(spec, self.fitted["constant"])

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.ordinal.corn_loss`."""
        return corn_loss(output, target)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities of the grades (B, K)."""
        return chain_probabilities(output)

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> OrdinalResult:
        """The median grade."""
        grades = self.options.grades
        above_T = activation_K.flip(0).cumsum(dim=0).flip(0)[1:]  # from the highest grade down, as in _above
        label = grades[int((above_T > 0.5).sum())]
        return OrdinalResult(label=label, probabilities=dict(zip(grades, activation_K.tolist(), strict=True)))

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
        grade_N, probability_NK, fold_N = self.arrays(cases)
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

    def ranked(self, cases: Sequence[ScoredCase]) -> list[Ranked]:
        """Whether the grade is above each threshold."""
        grade_N, probability_NK, _ = self.arrays(cases)
        above_NT, score_NT = _above(grade_N, probability_NK)
        return [
            Ranked(f"above {name}", cases, above_NT[:, index], score_NT[:, index])
            for index, name in enumerate(self.options.grades[:-1])
        ]


def _above(
    grade_N: npt.NDArray[np.intp], probability_NK: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Per threshold k whether the grade is above it, and the probability of that, both (N, K - 1)."""
    thresholds = np.arange(probability_NK.shape[1] - 1)
    # summed from the highest grade down: 1 - the sum from below rounds small ones away, and falls below 0
    above_NK = np.cumsum(probability_NK[:, ::-1], axis=1)[:, ::-1]
    return grade_N[:, None] > thresholds, above_NK[:, 1:]
