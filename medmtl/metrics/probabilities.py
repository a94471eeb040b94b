"""How good decisions and probabilities are: scores of predicted classes, and the Brier score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medmtl.metrics.estimate import Estimate
from medmtl.metrics.intervals import (
    BoolArray,
    FloatArray,
    IntArray,
    bootstrap_estimate,
    divide,
    patient_codes,
    proportion_estimate,
    too_few,
    weighted_mean,
)


def threshold_scores(
    class_N: IntArray,
    predicted_class_N: IntArray,
    n_classes: int,
    patients: Sequence[str] | None = None,
) -> dict[str, Estimate]:
    """Balanced accuracy and macro F1 of predicted classes, with BCa intervals over patients.

    Balanced accuracy is the mean recall of the classes that occur. F1 is 2 TP / (2 TP + FP + FN), averaged over the
    classes that occur or are predicted. Both as in scikit-learn.

    Args:
        class_N: index of each case's class.
        predicted_class_N: index of the predicted class.
        n_classes: number of classes.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        ``balanced_accuracy`` and ``f1_macro``, with the number of averaged classes as ``n_classes`` in ``extra``; no
        value if a single class occurs, where a constant answer would be perfect, and no interval below 10 patients, or
        10 in the rarest class that occurs.
    """
    names = ("balanced_accuracy", "f1_macro")
    n, occurring = len(class_N), len(np.unique(class_N))
    if occurring < 2:
        return {name: Estimate(None, "higher", n=n, why="no two classes occur") for name in names}
    cell_NC = np.eye(n_classes**2)[class_N * n_classes + predicted_class_N]

    def counts(weight_RN: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """How often each class is right, occurs and is predicted, each (R, n_classes)."""
        confusion_RKK = (weight_RN @ cell_NC).reshape(-1, n_classes, n_classes)
        return np.diagonal(confusion_RKK, axis1=1, axis2=2), confusion_RKK.sum(axis=2), confusion_RKK.sum(axis=1)

    def balanced_accuracy(weight_RN: FloatArray) -> FloatArray:
        right_RK, occurs_RK, _ = counts(weight_RN)
        return np.asarray(np.nanmean(divide(right_RK, occurs_RK), axis=1))

    def f1_macro(weight_RN: FloatArray) -> FloatArray:
        right_RK, occurs_RK, predicted_RK = counts(weight_RN)
        return np.asarray(np.nanmean(divide(2 * right_RK, occurs_RK + predicted_RK), axis=1))

    patient_N = patient_codes(patients, n)
    refused, averaged = too_few(class_N, patient_N), (occurring, len(np.union1d(class_N, predicted_class_N)))
    return {
        name: bootstrap_estimate(statistic, patient_N, "higher", extra={"n_classes": classes}, refused=refused)
        for name, statistic, classes in zip(names, (balanced_accuracy, f1_macro), averaged, strict=True)
    }


def sensitivity_specificity(
    positive_N: BoolArray, predicted_positive_N: BoolArray, patients: Sequence[str] | None = None
) -> tuple[Estimate, Estimate]:
    """Share of the positives that are found, and of the negatives that are left alone, with Wilson intervals.

    The intervals are over patients; see :func:`medmtl.metrics.intervals.proportion_estimate`.

    Args:
        positive_N: which cases are positive.
        predicted_positive_N: which cases are called positive.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        Sensitivity and specificity; no value without cases of the class, no interval below 10 patients of it.
    """
    patient_N = patient_codes(patients, len(positive_N))
    return (
        proportion_estimate(predicted_positive_N[positive_N], patient_N[positive_N], "higher", "no positive case"),
        proportion_estimate(~predicted_positive_N[~positive_N], patient_N[~positive_N], "higher", "no negative case"),
    )


def brier(class_N: IntArray, probability_NK: FloatArray, patients: Sequence[str] | None = None) -> Estimate:
    """Brier score: mean squared error of the probabilities, with its BCa interval over patients.

    Two classes: of the probability of the last one, so 0 to 1. More: summed over the classes, so 0 to 2 (Brier 1950,
    https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2).

    Args:
        class_N: index of each case's class.
        probability_NK: probability of each class.
        patients: patient of each case; None means that each case is a patient.

    Returns:
        The score; no interval below 10 patients, or 10 in the rarest class that occurs.
    """
    n_classes = probability_NK.shape[1]
    error_NK: npt.NDArray[np.float64] = probability_NK - np.eye(n_classes)[class_N]
    squared_N = error_NK[:, 1] ** 2 if n_classes == 2 else (error_NK**2).sum(axis=1)
    patient_N = patient_codes(patients, len(class_N))
    return bootstrap_estimate(weighted_mean(squared_N), patient_N, "lower", refused=too_few(class_N, patient_N))
