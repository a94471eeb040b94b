"""How a mask is scored: per case, and over cases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.metrics.estimate import Better, Estimate
from medmtl.metrics.intervals import mean_estimate
from medmtl.metrics.lesions import lesion_scores
from medmtl.metrics.overlap import dice, outcome, volume_ml
from medmtl.metrics.surface import surface_scores
from medmtl.tasks.base import ScoredCase
from medmtl.tasks.segmentation.options import SegmentationOptions

OUTCOMES = ("missed", "false", "true_negative")
EMPTY = ("false", "true_negative")  # the outcomes of a reference that holds no voxel
LESION_COUNTS = ("lesions", "lesions_found", "lesions_false")

Scores = dict[str, float | None]


def mask_scores(
    predicted: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    spacing: Sequence[float],
    structures: Mapping[str, Collection[int]],
    ignored: Collection[int],
    options: SegmentationOptions,
) -> Scores:
    """Every metric of every label and region, then the means over what is trained.

    Both empty: no Dice and no distances. One empty: Dice 0, HD95 the image's diagonal, NSD 0.

    Voxels that nobody labelled are taken out of both masks first, so that each mask ends where they begin. Where both
    masks reach them, the two cuts coincide and lie at no distance from each other; a mask that reaches them alone has
    its cut counted as surface, as at the edge of the image.

    Args:
        predicted, truth: label values on one grid.
        spacing: in mm.
        structures: label or region -> its values.
        ignored: values of ``truth`` where nobody labelled.
        options: of the task.
    """
    labelled = ~np.isin(truth, list(ignored))
    scores: Scores = {}
    for name, values in structures.items():
        found, reference = (np.isin(mask, list(values)) & labelled for mask in (predicted, truth))
        surface = surface_scores(found, reference, spacing, options.tolerance_mm)
        kind = outcome(found, reference)
        own: Scores = {
            "dice": dice(found, reference),
            "hd95_mm": surface.hd95_mm,
            _nsd(options): surface.nsd,
            "volume_error_ml": volume_ml(found, spacing) - volume_ml(reference, spacing),
            **{other: float(kind == other) for other in OUTCOMES},
        }
        if options.lesions:
            lesions = lesion_scores(found, reference)
            own |= {"lesion_f1": lesions.f1, "lesion_sensitivity": lesions.sensitivity}
            own["lesion_false_positives"] = float(lesions.false)
            counts = (lesions.reference, lesions.found, lesions.false)
            own |= dict(zip(LESION_COUNTS, map(float, counts), strict=True))
        scores |= {f"{metric}/{name}": value for metric, value in own.items()}
    return {**_means(scores, options), **scores}


def without_labels(
    scores: Mapping[str, float | None], unannotated: Collection[str], options: SegmentationOptions
) -> Scores:
    """The scores of a case of which some labels were not annotated: what needs them has no value, nor enters a mean.

    Args:
        scores: of :func:`mask_scores`.
        unannotated: names of labels.
        options: of the task.
    """
    unknown = {*unannotated, *(name for name, held in options.regions.items() if not set(unannotated).isdisjoint(held))}
    kept = {key: None if key.partition("/")[2] in unknown else value for key, value in scores.items()}
    return {**kept, **_means(kept, options)}


def estimates(cases: Sequence[ScoredCase], options: SegmentationOptions) -> dict[str, Estimate]:
    """Means over cases with BCa intervals over patients.

    They carry how many masks were missed or false, of how many that hold the label or are empty in the reference, or
    how many lesions there were, were found and were false, and where cases may be annotated for some labels only, in
    how many cases a label or region was not. Where a reference is empty, ``dice_present`` and ``hd95_mm_present`` are
    the means over the references that are not.
    """
    patients = [case.patient for case in cases]
    found: dict[str, Estimate] = {}
    for name in ("", *options.labels, *options.regions):
        members, end = ((name,), f"/{name}") if name else (_trained(options), "")
        masks = _mask_counts(cases, members)
        for metric, (better, unit) in _metrics(options).items():
            key = f"{metric}{end}"
            counts = masks
            if metric.startswith("lesion_"):
                counts = {f"n_{kind}": _total(cases, kind, members) for kind in LESION_COUNTS}
            if options.annotated is not None and name:
                counts = {**counts, "n_not_annotated": sum(not _is_known(case, name) for case in cases)}
            found[key] = mean_estimate([case.scores[key] for case in cases], patients, better, unit, counts)
            if cases and counts.get("n_not_annotated") == len(cases):
                found[key] = replace(found[key], why=f"{name} is annotated in no case")
        for metric in ("dice", "hd95_mm") if masks["n_empty"] else ():
            values = [_mean_where_present(case, metric, members) for case in cases]
            counts = {"n_missed": masks["n_missed"], "n_present": masks["n_present"]}
            found[f"{metric}_present{end}"] = mean_estimate(values, patients, *_metrics(options)[metric], counts)
    return found


def _mask_counts(cases: Sequence[ScoredCase], members: Sequence[str]) -> dict[str, int]:
    """Masks by outcome, and how many references hold the label and are empty."""
    counts = {f"n_{kind}": _total(cases, kind, members) for kind in OUTCOMES}
    empty = sum(counts[f"n_{kind}"] for kind in EMPTY)
    known = sum(_is_known(case, member) for case in cases for member in members)
    return {**counts, "n_present": known - empty, "n_empty": empty}


def _is_known(case: ScoredCase, member: str) -> bool:
    """Whether a label or region was annotated."""
    return case.scores[f"{OUTCOMES[0]}/{member}"] is not None


def _mean_where_present(case: ScoredCase, metric: str, members: Sequence[str]) -> float | None:
    """Over the labels that the case's reference holds."""
    held = [member for member in members if not any(case.scores[f"{kind}/{member}"] for kind in EMPTY)]
    values = [value for member in held if (value := case.scores[f"{metric}/{member}"]) is not None]
    return float(np.mean(values)) if values else None


def _means(scores: Mapping[str, float | None], options: SegmentationOptions) -> Scores:
    """Of every metric over what is trained and has a value."""
    means: Scores = {}
    for metric in _metrics(options):
        known = [value for name in _trained(options) if (value := scores[f"{metric}/{name}"]) is not None]
        means[metric] = float(np.mean(known)) if known else None
    return means


def _total(cases: Sequence[ScoredCase], kind: str, members: Sequence[str]) -> int:
    return int(sum((case.scores[f"{kind}/{member}"] or 0) for case in cases for member in members))


def _nsd(options: SegmentationOptions) -> str:
    return f"nsd_{options.tolerance_mm:g}mm"


def _trained(options: SegmentationOptions) -> tuple[str, ...]:
    return tuple(options.regions if options.train == "regions" else options.labels)


def _metrics(options: SegmentationOptions) -> dict[str, tuple[Better, str | None]]:
    metrics: dict[str, tuple[Better, str | None]] = {
        "dice": ("higher", None),
        "hd95_mm": ("lower", "mm"),
        _nsd(options): ("higher", None),
        "volume_error_ml": ("zero", "ml"),
    }
    if options.lesions:
        metrics |= {
            "lesion_f1": ("higher", None),
            "lesion_sensitivity": ("higher", None),
            "lesion_false_positives": ("lower", None),
        }
    return metrics
