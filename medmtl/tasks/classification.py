"""Classification: one of a list of classes per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from medmtl.data.volume import Volume
from medmtl.losses.cross_entropy import best_constant_cross_entropy, best_constant_distribution, cross_entropy_loss
from medmtl.losses.focal import best_constant_focal, focal_loss
from medmtl.losses.terms import FOCAL_GAMMA
from medmtl.metrics import calibration, probabilities, ranking
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.expected_width import ExpectedWidth, auc_width
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import Numbers, ScoredCase
from medmtl.tasks.class_cell import refuse_absent, refuse_doubled
from medmtl.tasks.one_of_several import OneOfSeveral, OneOfSeveralOptions, OneOfSeveralResult
from medmtl.tasks.ranked import Ranked

FIXED = "fixed, not fitted"
FITTED = "Youden's J on the other folds' out-of-fold predictions"
CALIBRATED = "Platt scaling fitted on the other folds' out-of-fold predictions"
CALIBRATED_P = "calibrated_p_"


class ClassificationOptions(OneOfSeveralOptions):
    """Options of a classification.

    Attributes:
        classes: the classes, as written in the table; the order is kept, and the last of two is the positive one.
        class_weights: ``none``: every case counts alike, so that probabilities mean what they say. ``balanced``: class
            k has the weight n / (K n_k), so that rare classes are called more often and their probabilities are too
            high; a ranking (AUC) seldom gains by it.
        loss: ``cross_entropy``, or ``focal``, which dwells on the cases that are still wrong; its probabilities are
            nearer to each other than the shares that they stand for.
        gamma: of loss focal, None for 2; the higher, the less a case counts that is right already. 0 is cross-entropy.
        label_smoothing: of loss cross_entropy: the share of every label that is spread evenly over all classes.
        class_sampling: ``none``: cases are drawn as they come. ``balanced``: the classes are drawn in turn, for which
            ``training.sampling`` must be ``labelled``; the head starts from equal classes, and its probabilities are
            those of a cohort of equal classes, too high for the rare ones. Cases that are drawn for tasks with other
            labelled cases keep their own classes' shares. Not together with ``class_weights: balanced``, which would
            count rare classes twice.
    """

    classes: tuple[str, ...] = Field(min_length=2)
    class_weights: Literal["none", "balanced"] = "none"
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: Annotated[float, Field(ge=0, le=10)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_sampling: Literal["none", "balanced"] = "none"

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        refuse_doubled(classes)
        return classes

    @model_validator(mode="after")
    def _loss_is_one(self) -> ClassificationOptions:
        if self.gamma is not None and self.loss != "focal":
            raise ValueError(f"gamma belongs to loss: focal, and the loss is {self.loss}")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                "label_smoothing belongs to loss: cross_entropy, and the loss is focal, whose factor is of one class"
            )
        return self

    @model_validator(mode="after")
    def _balanced_once(self) -> ClassificationOptions:
        if self.class_weights == self.class_sampling == "balanced":
            raise ValueError("class_weights and class_sampling are both balanced; set one of them to none")
        return self


class ClassificationResult(OneOfSeveralResult):
    """The likeliest class, with the probability of each."""


class Classification(OneOfSeveral):
    """One class per case, trained by cross-entropy or the focal loss, with a head that pools several scales."""

    kind = "classification"
    Options = ClassificationOptions
    options: ClassificationOptions
    classes_option = "classes"
    sampling_option = "class_sampling"

    @property
    def classes(self) -> tuple[str, ...]:
        """As declared; the last of two is the positive one."""
        return self.options.classes

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[Numbers, Numbers]:
        """Of two classes the probability of the last, and whether it is it; of more, which have no order, of each."""
        if len(activation_K) == 2:
            return super().probe_pair(activation_K, target)
        return activation_K.tolist(), torch.nn.functional.one_hot(target, len(activation_K)).tolist()

    def fit(self, truths: Sequence[str]) -> dict[str, Any]:
        """Counts, weights, the best constant distribution, and its loss as ``loss_scale``.

        Raises:
            CellError: B115 if a class has no case.
        """
        classes = self.options.classes
        counts = [truths.count(name) for name in classes]
        refuse_absent(counts, classes, self.options.column)
        balanced = self.options.class_weights == "balanced"
        weights = [len(truths) / (len(classes) * count) if balanced else 1.0 for count in counts]
        # what is drawn, and so what a constant answer should be judged by
        drawn = [1] * len(classes) if self.options.class_sampling == "balanced" else counts
        if self.options.loss == "focal":
            constant, scale = best_constant_focal(drawn, weights, self._gamma)
        else:
            smoothing = self.options.label_smoothing
            constant = best_constant_distribution(drawn, weights, smoothing)
            scale = best_constant_cross_entropy(drawn, weights, smoothing)
        return {"counts": counts, "weights": weights, "constant": constant, "loss_scale": scale}

    def sampling_groups(self, truths: Mapping[str, Any]) -> dict[str, str] | None:
        """Each case's class, where classes are drawn equally often."""
        return dict(truths) if self.options.class_sampling == "balanced" else None

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Logits (B, K); at first those of the best constant distribution, whatever the image."""
        return self.pooled_head(spec, np.log(self.fitted["constant"]).tolist())

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Weighted, per sample; see :mod:`medmtl.losses.cross_entropy` and :mod:`medmtl.losses.focal`."""
        weights = torch.tensor(self.fitted["weights"], dtype=torch.float32, device=output.device)
        if self.options.loss == "focal":
            return focal_loss(output, target, self._gamma, weights)
        return cross_entropy_loss(output, target, weights, self.options.label_smoothing)

    @property
    def _gamma(self) -> float:
        return FOCAL_GAMMA if self.options.gamma is None else self.options.gamma

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, K)."""
        return output.float().softmax(dim=1)

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> ClassificationResult:
        """The likeliest class; the first of equals."""
        values = dict(zip(self.options.classes, activation_K.tolist(), strict=True))
        return ClassificationResult(label=max(values, key=values.__getitem__), probabilities=values)

    def out_of_fold(self, cases: Sequence[ScoredCase]) -> list[ScoredCase]:
        """Each case with its ``calibrated_p_CLASS`` and, for two classes, the ``threshold`` of its fold.

        Both are fitted on the other folds' predictions, without the fold's own patients; see
        :mod:`medmtl.metrics.calibration`. Where that cannot be done for every fold it is done for none.
        """
        class_N, probability_NK, fold_N = self.arrays(cases)
        patient_N = np.array([case.patient for case in cases], dtype=np.str_)
        found = list(cases)
        for fold in np.unique(fold_N):
            own_N = fold_N == fold
            other_N = ~own_N & ~np.isin(patient_N, patient_N[own_N])
            fitted = calibration.fit_calibrator(class_N[other_N], probability_NK[other_N])
            cut: dict[str, float] = {}
            if len(self.options.classes) == 2:
                threshold = calibration.youden_threshold(class_N[other_N] == 1, probability_NK[other_N, 1])
                fitted = None if threshold is None else fitted
                cut = {} if threshold is None else {"threshold": threshold}
            if fitted is None:
                return list(cases)
            applied = fitted.apply(probability_NK[own_N]).tolist()
            for row, probability_K in zip(np.flatnonzero(own_N).tolist(), applied, strict=True):
                names = (f"{CALIBRATED_P}{name}" for name in self.options.classes)
                reference = {**cases[row].reference, **cut, **dict(zip(names, probability_K, strict=True))}
                found[row] = replace(cases[row], reference=reference)
        return found

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """AUC first. For two classes the last is positive.

        Sensitivity and specificity are at the threshold that :meth:`out_of_fold` fitted, else at probability 0.5, and
        say which; balanced accuracy and F1 are of the likeliest class. ``brier_calibrated`` is there where
        :meth:`out_of_fold` calibrated.
        """
        class_N, probability_NK, fold_N = self.arrays(cases)
        patients = [case.patient for case in cases]
        n_classes = len(self.options.classes)
        decided_N = probability_NK.argmax(axis=1)
        estimates: dict[str, Estimate] = {}
        if n_classes == 2:
            positive_N, score_N = class_N == 1, probability_NK[:, 1]
            estimates["auc"] = ranking.auc(positive_N, score_N, fold_N, patients)
            estimates["average_precision"] = ranking.average_precision(positive_N, score_N, fold_N, patients)
        else:
            estimates["auc"] = ranking.auc_macro(class_N, probability_NK, fold_N, patients)
            estimates["average_precision"] = _mean_over_classes(
                [
                    ranking.average_precision(class_N == index, probability_NK[:, index], fold_N, patients)
                    for index in range(n_classes)
                ]
            )
        estimates.update(probabilities.threshold_scores(class_N, decided_N, n_classes, patients))
        if n_classes == 2:
            estimates.update(_at_threshold(cases, class_N == 1, probability_NK[:, 1], decided_N == 1))
        estimates["brier"] = probabilities.brier(class_N, probability_NK, patients)
        calibrated_NK = self._calibrated(cases)
        if calibrated_NK is not None:
            estimate = probabilities.brier(class_N, calibrated_NK, patients)
            estimates["brier_calibrated"] = replace(estimate, extra={"calibrator": CALIBRATED})
        return estimates

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """Of the area under the ROC curve; see :func:`medmtl.metrics.expected_width.auc_width`."""
        return auc_width(
            [
                [len({patient for patient, truth in fold if truth == name}) for name in self.options.classes]
                for fold in folds
            ]
        )

    def ranked(self, cases: Sequence[ScoredCase]) -> list[Ranked]:
        """The positive class, or each of several classes against the rest."""
        class_N, probability_NK, _ = self.arrays(cases)
        calibrated_NK = self._calibrated(cases)
        return [
            Ranked(
                name,
                cases,
                class_N == index,
                probability_NK[:, index],
                None if calibrated_NK is None else calibrated_NK[:, index],
            )
            for index, name in enumerate(self.options.classes)
            if index > 0 or len(self.options.classes) > 2
        ]

    def _calibrated(self, cases: Sequence[ScoredCase]) -> npt.NDArray[np.float64] | None:
        """Calibrated probabilities (N, K), or None where a case has none."""
        names = [f"{CALIBRATED_P}{name}" for name in self.options.classes]
        if not cases or any(name not in case.reference for case in cases for name in names):
            return None
        return np.array([[case.reference[name] for name in names] for case in cases], dtype=np.float64)


def _at_threshold(
    cases: Sequence[ScoredCase],
    positive_N: npt.NDArray[np.bool_],
    score_N: npt.NDArray[np.float64],
    likeliest_N: npt.NDArray[np.bool_],
) -> dict[str, Estimate]:
    """Sensitivity and specificity at each case's fitted threshold, or of the likeliest class where none is fitted."""
    by_fold = {case.fold: case.reference["threshold"] for case in cases if "threshold" in case.reference}
    label: dict[str, Any] = {"threshold": 0.5, "threshold_source": FIXED}
    called_N = likeliest_N
    if by_fold:
        called_N = score_N >= np.array([case.reference["threshold"] for case in cases])
        thresholds = {str(fold): by_fold[fold] for fold in sorted(by_fold)}
        label = {"threshold_by_fold": thresholds, "threshold_source": FITTED}
    pair = probabilities.sensitivity_specificity(positive_N, called_N, [case.patient for case in cases])
    names = ("sensitivity", "specificity")
    return {
        name: replace(estimate, extra={**estimate.extra, **label}) for name, estimate in zip(names, pair, strict=True)
    }


def _mean_over_classes(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of the classes that have a value; without an interval."""
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    n = max(estimate.n for estimate in estimates)
    if not values:
        return Estimate(None, "higher", n=n, why=estimates[0].why)
    why = "no interval is made for a mean over classes"
    return Estimate(float(np.mean(values)), "higher", n=n, why=why, extra={"n_classes": len(values)})
