"""What metrics, intervals and counts mean, in words for the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

METHODS = {
    "bca": "BCa bootstrap",
    "clopper-pearson-pairs": "Clopper-Pearson on pairs",
    "delong-logit": "DeLong, logit scale",
    "u-statistic-logit": "U-statistic, logit scale",
    "wilson": "Wilson",
}
BETTER = {"higher": "higher", "lower": "lower", "zero": "near zero", "one": "near one", "nominal": "near 0.95"}
ENDINGS = {
    "_within_site": "over pairs of cases of one site and fold",
    "_site_alone": "of a model that sees nothing but the site",
    "_reference_window": "around the reference's lesion, so that finding it costs nothing",
    "_predicted_window": "on the same cases around the predicted one",
    "_present": "over the references that are not empty, missed ones included",
    "_derived": "of the value that is measured on the predicted masks",
}
MEANINGS = {
    "dice": "overlap of the masks, twice what both hold over the sum of both",
    "froc": "mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per case, at an overlap (IoU) of 0.1",
    "map": "average precision, mean over overlaps (IoU) of 0.1 to 0.5",
    "hd95_mm": "95th percentile of the distance between the surfaces, of the two directions the larger",
    "nsd": "share of both surfaces that lies within the tolerance of the other one",
    "volume_error_ml": "mean of predicted − reference, above 0 where predictions are too large",
    "lesion_f1": "mean over cases of 2 x lesions found / (reference lesions + predicted ones), found at an overlap "
    "(IoU) above 0.1",
    "lesion_sensitivity": "mean over cases of the share of the case's lesions that are found, at an overlap (IoU) "
    "above 0.1",
    "lesion_false_positives": "predicted lesions per case that are none of the reference",
    "ap": "average precision where a box is right that overlaps a lesion (IoU) by this many per cent",
    "mae": "mean absolute difference of predicted and observed",
    "rmse": "root of the mean squared difference of predicted and observed",
    "psnr": "20 log10 of the reference's range over the root mean squared error",
    "ssim": "structural similarity of the maps; 1 is equality",
    "sensitivity": "share of the positive cases that are called positive",
    "specificity": "share of the negative cases that are called negative",
    "auc": "share of pairs of a positive and a negative case that are ranked rightly, of several classes the mean "
    "of each against the rest; 0.5 is chance",
    "average_precision": "area under precision over recall; chance is the share of positive cases among those that "
    "are compared",
    "f1_macro": "2 x right calls / (calls + cases) of each class, mean over the classes",
    "balanced_accuracy": "mean share of each class that is called rightly, calling the likeliest class",
    "r2": "1 − squared error / squared distance of the observed values from their mean; 0 is no better than that mean",
    "spearman": "correlation of the ranks, from −1 to 1",
    "c_index": "share of pairs whose order in time is known that the risk orders rightly (Harrell); 0.5 is chance",
    "c_index_uno": "the same over pairs whose earlier case had its event by the horizon, and while a tenth of the "
    "cases were followed, weighted so that it does not depend on who was censored when: each pair counts by the square "
    "of its earlier case's censoring_weight",
    "brier_integrated": "squared error of the predicted survival curve, mean over time; 0 is perfect",
    "bias": "mean of predicted − observed",
    "loa_lower": "lower 95 % limit of agreement, bias − 1.96 standard deviations of the differences",
    "loa_upper": "upper 95 % limit of agreement, bias + 1.96 standard deviations of the differences",
    "kappa_quadratic": "agreement beyond chance, where an error counts by its square",
    "slope": "of observed on predicted; below 1 the predictions are too far apart, above 1 too close together",
    "coverage_95": "share of values inside their predicted 95 % interval",
    "interval_score_95": "mean width of the predicted intervals, plus 40 times how far missed values lie outside",
    "brier": "mean squared error of the probabilities; of more than two classes summed over the classes",
    "brier_calibrated": "the same after calibration",
    "skill": "1 − mean absolute error / that of always answering the training median; 0 is no better",
}
OF_KIND = {  # where a kind means something else by a name
    ("ordinal", "balanced_accuracy"): "mean share of each grade that is called rightly, calling the median grade",
    ("survival", "auc"): "of cases with the event by this time against those without it until then; 0.5 is chance",
    ("multilabel", "auc"): "mean of the findings' areas under the ROC curve; 0.5 is chance",
    ("ordinal", "auc"): "mean over the thresholds between grades of the area under the ROC curve; 0.5 is chance",
    (
        "survival",
        "skill",
    ): "1 − integrated Brier score / that of the training fold's Kaplan-Meier curve; 0 is no better",
}
EMPTY_MASKS = (
    "Where only one of the two masks is empty, Dice and NSD are 0 and the distance is the diagonal of the scan, also "
    "for a single false voxel; where both are, there is no value. In the notes missed masks are counted of those that "
    "the reference holds, false and true negative ones of those that it leaves empty."
)
COUNTS = {
    "n_classes": "over {} classes",
    "n_areas": "over {} areas",
    "n_events": "{} events",
    "n_clipped": "{} brought inside the range",
    "n_undefined": "{} that the masks do not define",
}
"""Count -> how it is told; nothing of a count of 0."""
OUT_OF = {"n_missed": "n_present", "n_false": "n_empty", "n_true_negative": "n_empty"}
"""Count -> the count that it is a part of, which is not told by itself."""


def explained(metrics: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    """What the metrics of a task of a kind mean, a line each; nothing where they need no word.

    Args:
        metrics: as in ``metrics.json``; those of a part, ``METRIC/PART``, mean the same for all parts.
        kind: of the task.
    """
    named = {name.partition("/")[0]: _meaning(name, kind) for name in metrics}
    meanings = [f"{name}: {text}" for name, text in named.items() if text]
    meanings += [f"...{end}: {text}" for end, text in ENDINGS.items() if any(name.endswith(end) for name in named)]
    lines = [f"{meaning}." for meaning in meanings]
    if meanings and any("n_empty" in metric for metric in metrics.values()):
        lines.append(EMPTY_MASKS)
    return "\n".join(lines)


def _meaning(name: str, kind: str) -> str | None:
    """Also of a name that ends in a number of the configuration, such as ``nsd_1mm``."""
    own, _, part = name.partition("/")
    if part and kind == "multilabel":
        kind = "classification"  # which each finding is
    names: Sequence[str] = (own, re.sub(r"_(iou)?[0-9.]+(mm)?$", "", own))
    return next((text for key in names if (text := OF_KIND.get((kind, key), MEANINGS.get(key)))), None)
