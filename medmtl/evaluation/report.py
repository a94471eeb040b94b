"""``report.html``: one file that shows a run's scores, pictures, warnings, plan and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from medmtl.data.formats.nifti import read_image, read_label
from medmtl.evaluation import tables
from medmtl.evaluation.conflict import conflict_pictures
from medmtl.evaluation.pictures import Picture, draw, loss_curve, overlay
from medmtl.evaluation.score import CONDITIONAL, FINDINGS, PAGE, Scores
from medmtl.evaluation.scored_case import reference_mask
from medmtl.evaluation.tables import Table, number
from medmtl.files import read_json, write_atomic
from medmtl.inference.unfinished import progress_of
from medmtl.inference.write import answer_file
from medmtl.metrics.figures import CalibrationFigure, FrocFigure, RocFigure
from medmtl.run_folder import MAX_JSON_BYTES, RunFolder
from medmtl.tasks.base import ScoredCase
from medmtl.tasks.voxel import LabelTask

UNALARMING = ("trained", "undecided")  # verdicts on a head
SPLITS = {"val": "validation", "test": "test", "train": "training"}


@dataclass(frozen=True)
class _Section:
    """One task's part of the page."""

    name: str
    kind: str
    metrics: list[Table]
    figures: list[Picture]
    overlays: list[Picture]
    sites: list[Table]


def write_report(scores: Scores, runs: Sequence[RunFolder], *, share: bool = False) -> Path:
    """Write ``report.html`` into the evaluation folder: one file, no scripts, nothing read from a network.

    Equal scores and equal run folders give equal bytes.

    Args:
        scores: the evaluated split.
        runs: the runs that predicted it, in the order of their folds; plan and loss curves are the first one's.
        share: leave out ids, scans, per-case values, examples of findings, and groups of fewer than five patients in
            the tables by site, by cohort and of the split; see :mod:`medmtl.evaluation.small_groups`.

    Returns:
        The file.

    Raises:
        InputError: if a scan, a reference or a mask that is to be shown can no longer be read.
        ArtefactError: if a file of a run folder is damaged.
    """
    first = runs[0]
    manifest = first.load_manifest()
    collapse = tables.collapse_table(runs)
    page = _template().render(
        title="Evaluation"
        if share
        else f"Evaluation of {first.path.name if len(runs) == 1 else first.path.parent.name}",
        lead=", ".join((_who(scores, share), _counted(len(scores.tasks), "task"), _models(scores.folds))),
        notes=list(dict.fromkeys((scores.metrics["note"], CONDITIONAL, *_how(scores), *_left_out(scores)))),
        # a result that flatters is said as loudly as a fault
        flattered=scores.split == "train" or scores.metrics.get("external") is False,
        alerts=[*_strange(scores), *_alerts(collapse, scores.metrics.get("unfinished", ()))],
        share=share,
        summary=tables.summary_table(scores),
        sections=[_section(scores, name, share) for name in scores.tasks],
        first=f"fold {manifest['fold']}" if len(runs) > 1 else "",
        curves=_loss_curves(first, list(scores.tasks)),
        conflict=conflict_pictures(first.read_log()),
        training=[collapse],
        data=[
            tables.finding_table(read_json(_findings(scores, first), limit_bytes=MAX_JSON_BYTES), share),
            tables.split_table(first.load_splits(), share),
        ],
        plan=tables.plan_table(first.load_plan()),
        versions=", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items()),
    )
    path = scores.folder / PAGE
    write_atomic(path, page.encode(errors="backslashreplace"))  # a folder's name may be no text
    return path


def _template() -> Template:
    text = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text)


def _who(scores: Scores, share: bool) -> str:
    """Which cases, and how many."""
    if "cohort" in scores.metrics:
        where = "another cohort" if share else f"the cohort {scores.metrics['cohort']}"
        return f"{_counted(scores.metrics['cases'], 'case')} of {where}"
    return _counted(scores.metrics["cases"], f"{SPLITS.get(scores.split, scores.split)} case")


def _how(scores: Scores) -> list[str]:
    """What it means that several models predicted."""
    if len(scores.folds) == 1 or scores.split == "train":
        return []
    if scores.split == "val":
        return [
            "each case was predicted by the model that had not seen it; cases are ranked against others of their fold "
            "only"
        ]
    return ["the models of all folds answered together, by the average of their answers"]


def _left_out(scores: Scores) -> list[str]:
    skipped = scores.metrics.get("skipped")
    return [f"not scored, because this cohort has no such task: {', '.join(skipped)}"] if skipped else []


def _strange(scores: Scores) -> list[str]:
    """That another cohort's cases are not like those of the training."""
    found = scores.metrics.get("outside_training")
    if not found:
        return []
    places = ", ".join(f"{name} in {count}" for name, count in found["in"].items())
    return [f"{found['cases']} of {scores.metrics['cases']} cases lie outside what the model was trained on: {places}"]


def _alerts(collapse: Table, unfinished: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """That models are not trained to their end, and what is wrong with a head by its newest verdict."""
    early = "; ".join(f"fold {found['fold']} stopped at {progress_of(found)}" for found in unfinished)
    newest = {row[:2]: row for row in collapse.rows}
    heads = [f"{task}, fold {fold}: {row[-1]}" for (fold, task), row in newest.items() if row[2] not in UNALARMING]
    return [f"not trained to the end: {early}", *heads] if early else heads


def _findings(scores: Scores, run: RunFolder) -> Path:
    """What the check of the scored cohort found."""
    return scores.folder / FINDINGS if "cohort" in scores.metrics else run.findings


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _models(folds: Sequence[int | str]) -> str:
    if list(folds) == ["none"]:
        return "one model trained on all cases but the test split"
    return f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))}"


def _section(scores: Scores, name: str, share: bool) -> _Section:
    body = scores.metrics["tasks"][name]
    sites = (
        tables.cohort_table(scores, name, share),
        tables.site_table(scores, name, share),
        tables.within_site_table(scores, name),
    )
    task, cases = scores.tasks[name], scores.cases[name]
    # points and strips are single patients' values; a curve over all cases is not
    figures = [f for f in task.figures(cases) if not share or isinstance(f, RocFigure | CalibrationFigure | FrocFigure)]
    pictures = [picture for figure in figures if (picture := draw(figure)) is not None]
    return _Section(
        name,
        body["kind"],
        tables.metric_tables(body["metrics"], body["kind"], fitted_elsewhere=_has_fitted_page(scores)),
        pictures,
        [] if share else _overlays(scores, name),
        [table for table in sites if table is not None],
    )


def _has_fitted_page(scores: Scores) -> bool:
    """Whether another page of this run, that of all folds, is the one on which thresholds are fitted."""
    return len(scores.folds) > 1 and scores.split != "val"


def _overlays(scores: Scores, name: str) -> list[Picture]:
    """The best, the median and the worst case of a voxel task, by its first per-case metric."""
    task = scores.tasks[name]
    if not isinstance(task, LabelTask):
        return []
    metric = next((key for case in scores.cases[name] for key in case.scores), "")
    ranked = _ranked(scores, name, metric)
    if not ranked:
        return []
    # later entries win: with fewer than three cases there is no median
    chosen = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best"}
    labels = _label_names(task, metric, ranked[0])
    pictures = []
    for index in sorted(chosen):
        case = ranked[index]
        file = answer_file(name, case.case_id, task)
        assert file is not None
        predicted = read_label(scores.folder / file)
        first_channel = next(iter(scores.images[case.case_id].values()))
        reference = reference_mask(task, scores.readers.get(name, task), case.truth)
        labelled = np.isin(reference.array, list(task.legal_values()))
        reference = replace(reference, array=np.where(labelled, reference.array, 0))
        picture = overlay(read_image(first_channel), reference, predicted, labels)
        empty = "" if reference.array.any() else "the reference is empty; "
        caption = f"{chosen[index].capitalize()}: {metric} {number(case.scores[metric])}; {empty}{picture.caption}"
        pictures.append(replace(picture, caption=caption, case_id=case.case_id))
    return pictures


def _ranked(scores: Scores, name: str, metric: str) -> list[ScoredCase]:
    """Cases whose metric and scan are known, from best to worst; ties in the order of their ids."""
    better = scores.metrics["tasks"][name]["metrics"].get(metric, {}).get("better", "higher")

    def loss(case: ScoredCase) -> tuple[float, str]:
        value = case.scores[metric]
        assert value is not None
        return {"higher": -value, "lower": value, "zero": abs(value)}[better], case.case_id

    known = [c for c in scores.cases[name] if c.scores.get(metric) is not None and c.case_id in scores.images]
    return sorted(known, key=loss)


def _label_names(task: LabelTask, metric: str, case: ScoredCase) -> dict[int, str]:
    """Label value -> name, as far as the per-case metrics ``METRIC/NAME`` tell; regions are not outlined."""
    names = [key.partition("/")[2] for key in case.scores if key.startswith(f"{metric}/")]
    values = {name: task.values_of(name) for name in names}
    single = {found[0]: name for name, found in reversed(values.items()) if len(found) == 1}
    return {value: single.get(value, f"value {value}") for value in sorted(task.legal_values() - {0})}


def _loss_curves(run: RunFolder, tasks: Sequence[str]) -> list[Picture]:
    records = run.read_log()

    def losses(name: str, key: str) -> list[tuple[int, float]]:
        logged = ((record["step"], record[key].get(name)) for record in records if key in record)
        return [(step, loss) for step, loss in logged if loss is not None]

    curves = (loss_curve(name, losses(name, "losses"), losses(name, "validation")) for name in tasks)
    return [curve for curve in curves if curve is not None]
