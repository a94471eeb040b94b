"""How wide a 95 % interval will be, from the number of labelled cases alone: for planning, before anything is trained.

Each width rests on an assumption that is said beside it. Scoring uses none of this: it measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import expit, logit

from medmtl.metrics.intervals import MINIMUM, TOO_FEW_EVENTS, TOO_FEW_OF_A_CLASS, TOO_FEW_PATIENTS, Z95

DICE_SD = 0.1  # a middle value; El Jurdi et al. 2023 call 0.03 a low spread, and difficult tasks have higher ones
AUC = 0.8
C_INDEX = 0.7
C_INDEX_SD = 0.26  # of one event
NOTHING_TO_RANK = "no fold holds two classes"
EVENTS = "patients with the event"


@dataclass(frozen=True)
class ExpectedWidth:
    """The interval that scoring will give, as far as counts can tell.

    Attributes:
        metric: the metric, or empty where the kind says nothing.
        assumption: what the width rests on.
        rarer: patients in the rarest class, for a classification; with an event, for a survival.
        width: upper less lower bound; of ``mae`` as a share of its value. None with ``why``.
        why: why there is none.
        counted: what ``rarer`` counts, as the heading of a column.
    """

    metric: str = ""
    assumption: str = ""
    rarer: int | None = None
    width: float | None = None
    why: str | None = None
    counted: str = "patients of the rarer class"


def dice_width(patients: int) -> ExpectedWidth:
    """Width of the interval of a mean Dice.

    ::

        2 z SD / sqrt(n),   SD = 0.1

    The normal interval, which in segmentation is close to the bootstrap's; with 20 cases it is 0.09 wide. El Jurdi and
    Colliot 2023, https://arxiv.org/abs/2210.14677; El Jurdi, Varoquaux and Colliot 2023,
    https://arxiv.org/abs/2307.10926.

    Args:
        patients: scored; below 10 there will be no interval.
    """
    assumption = f"over the masks that are not empty, if it varies by {DICE_SD:g} (SD) between patients"
    if patients < MINIMUM:
        return ExpectedWidth("dice", assumption, why=TOO_FEW_PATIENTS)
    return ExpectedWidth("dice", assumption, width=2 * Z95 * DICE_SD / math.sqrt(patients))


def mae_width(patients: int) -> ExpectedWidth:
    """Width of the interval of a mean absolute error, as a share of that error.

    ::

        2 z sqrt((pi / 2 - 1) / n)

    A normal error has a half-normal absolute value, whose standard deviation is sqrt(pi / 2 - 1) = 0.756 of its mean
    (Leone, Nelson and Nottingham 1961, https://doi.org/10.1080/00401706.1961.10489974).

    Args:
        patients: scored; below 10 there will be no interval.
    """
    assumption = "as a share of the MAE, if errors are normal"
    if patients < MINIMUM:
        return ExpectedWidth("mae", assumption, why=TOO_FEW_PATIENTS)
    return ExpectedWidth("mae", assumption, width=2 * Z95 * math.sqrt((math.pi / 2 - 1) / patients))


def c_index_width(patients: int, events: int) -> ExpectedWidth:
    """Width of the interval of a concordance index of 0.7, symmetric on the logit scale as scoring makes it.

    ::

        SE(C) = 0.26 / sqrt(events)

    Simulated under proportional hazards, where it holds within a tenth whether one case in five is censored or four; a
    test repeats it.

    Args:
        patients: scored; below 10 there will be no interval.
        events: patients with the event; below 10 there will be no interval.
    """
    assumption = f"at a C-index of {C_INDEX:g} under proportional hazards"
    if patients < MINIMUM or events < MINIMUM:
        why = TOO_FEW_PATIENTS if patients < MINIMUM else TOO_FEW_EVENTS
        return ExpectedWidth("c_index", assumption, events, why=why, counted=EVENTS)
    half = Z95 * C_INDEX_SD / math.sqrt(events) / (C_INDEX * (1 - C_INDEX))
    width = float(expit(logit(C_INDEX) + half) - expit(logit(C_INDEX) - half))
    return ExpectedWidth("c_index", assumption, events, width, counted=EVENTS)


def auc_width(folds: Sequence[Sequence[int]]) -> ExpectedWidth:
    """Width of the interval of an area under the ROC curve of 0.8, symmetric on the logit scale as scoring makes it.

    Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747, for m positives, n negatives and area A::

        Var(A) = (A (1 - A) + (m - 1) (A / (2 - A) - A^2) + (n - 1) (2 A^2 / (1 + A) - A^2)) / (m n)

    Pairs are compared within a fold only, so that folds are independent and weigh by their pairs. Of more than two
    classes the mean one-vs-rest area is scored; its standard error is at most the mean of the areas' own.

    Args:
        folds: per fold, the patients of each class; the last of two is positive.
    """
    classes = len(folds[0])
    assumption = f"at an AUC of {AUC:g}" if classes == 2 else f"at most, at a mean AUC of {AUC:g}"
    ranked = [counts for counts in folds if sum(count > 0 for count in counts) > 1]
    totals = [sum(counts[index] for counts in ranked) for index in range(classes)]
    rarer = min(sum(counts[index] for counts in folds) for index in range(classes))
    occurring = [index for index, total in enumerate(totals) if total]
    if not ranked or min(totals[index] for index in occurring) < MINIMUM:
        return ExpectedWidth("auc", assumption, rarer, why=TOO_FEW_OF_A_CLASS if ranked else NOTHING_TO_RANK)
    positive = occurring if classes > 2 else [1]
    errors = [
        _standard_error([(counts[index], sum(counts) - counts[index]) for counts in ranked]) for index in positive
    ]
    half = Z95 * (sum(errors) / len(errors)) / (AUC * (1 - AUC))
    return ExpectedWidth("auc", assumption, rarer, float(expit(logit(AUC) + half) - expit(logit(AUC) - half)))


def _standard_error(folds: Sequence[tuple[int, int]]) -> float:
    pairs = [positives * negatives for positives, negatives in folds]
    weighted = (n**2 * _variance(*counts) for n, counts in zip(pairs, folds, strict=True) if n)
    return math.sqrt(sum(weighted)) / sum(pairs)


def _variance(positives: int, negatives: int) -> float:
    spread = AUC * (1 - AUC)
    spread += (positives - 1) * (AUC / (2 - AUC) - AUC**2)
    spread += (negatives - 1) * (2 * AUC**2 / (1 + AUC) - AUC**2)
    return spread / (positives * negatives)
