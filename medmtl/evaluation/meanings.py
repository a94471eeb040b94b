"""What metrics and intervals mean, in words for the report."""

from __future__ import annotations

from collections.abc import Sequence

METHODS = {
    "bca": "BCa bootstrap",
    "clopper-pearson-pairs": "Clopper-Pearson on pairs",
    "delong-logit": "DeLong, logit scale",
    "wilson": "Wilson",
}
ENDINGS = {
    "_within_site": "over pairs of cases of one site and fold",
    "_site_alone": "of a model that sees nothing but the site",
    "_reference_window": "around the reference's lesion, so that finding it costs nothing",
    "_predicted_window": "on the same cases around the predicted one",
}
MEANINGS = {
    "froc": "mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per case, at an overlap (IoU) of 0.1",
    "map": "average precision, mean over overlaps (IoU) of 0.1 to 0.5",
    "hd95_mm": "95th percentile of the distance between the surfaces, of the two directions the larger",
    "balanced_accuracy": "mean share of each class that is called rightly, calling the likeliest class",
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
    (
        "survival",
        "skill",
    ): "1 − integrated Brier score / that of the training fold's Kaplan-Meier curve; 0 is no better",
}
BETTER = {"higher": "higher", "lower": "lower", "zero": "near zero", "one": "near one", "nominal": "near 0.95"}


def explained(names: Sequence[str], kind: str) -> str:
    """What metrics of a task of a kind mean, as a sentence; nothing where none needs a word."""
    found = {name: OF_KIND.get((kind, name), MEANINGS.get(name)) for name in names}
    meanings = [f"{name}: {text}" for name, text in found.items() if text]
    meanings += [f"...{end}: {text}" for end, text in ENDINGS.items() if any(name.endswith(end) for name in names)]
    return f"{'; '.join(meanings)}." if meanings else ""
