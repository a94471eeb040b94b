"""Predict the cases of a split and score them by the rules of the contract."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medmtl.build import build_tasks
from medmtl.data.case import Case
from medmtl.data.formats.nifti import read_image, read_label
from medmtl.device import DeviceName
from medmtl.errors import InputError
from medmtl.evaluation.cohorts import cohort_scores
from medmtl.evaluation.reference_window import Moved, moved_cases, moved_json
from medmtl.evaluation.scored_case import score_case
from medmtl.evaluation.selection import Group, Selection, folds_of, groups_of, learned_by
from medmtl.evaluation.site import Learned, headline, site_estimates, within_estimates
from medmtl.evaluation.source import take_over
from medmtl.files import append_line, make_private_folder, read_json, write_json
from medmtl.folder_lock import output_lock
from medmtl.freed_memory import freed_memory_kept
from medmtl.inference.case_prediction import assemble
from medmtl.inference.predict import Predictor
from medmtl.inference.write import ACTIVATIONS, answer_file, answer_folders, write_answers, write_table
from medmtl.metrics.estimate import Estimate
from medmtl.progress import Progress, silent
from medmtl.run_cohort import read_again
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import CaseTask, Cell, ScoredCase, Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, VoxelTask

logger = logging.getLogger(__name__)

METRICS, CASES, PAGE = "metrics.json", "cases.csv", "report.html"
MAX_ACTIVATIONS_BYTES = 1 << 28
FINDINGS = "findings.json"  # of the check of another cohort
CONDITIONAL = "intervals are conditional on the trained models"


@dataclass(frozen=True)
class Scores:
    """An evaluated split.

    Attributes:
        split: ``val``, ``test`` or ``train``; ``all`` of another cohort.
        folds: folds whose models predicted.
        tasks: the fitted tasks.
        cases: task -> labelled cases with prediction and reference; masks and maps lie in ``folder`` only.
        metrics: as in ``metrics.json``.
        folder: where everything was written.
        images: case id -> channel -> file.
        readers: the tasks as they read the labels, where that is another cohort's.
        within: ranking task -> its metrics over pairs of one fold and site, where there are several sites.
    """

    split: str
    folds: tuple[int | str, ...]
    tasks: Mapping[str, Task]
    cases: Mapping[str, Sequence[ScoredCase]]
    metrics: Mapping[str, Any]
    folder: Path
    images: Mapping[str, Mapping[str, Path]]
    readers: Mapping[str, Task] = field(default_factory=dict)
    within: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The split, its number of cases, and the primary metric of each task; no id."""
        told = [f"{self.split}, {self.metrics['cases']} cases"]
        for name, task in self.metrics["tasks"].items():
            value = task["metrics"][task["primary"]]["value"]
            told.append(f"{name} {task['primary']} {'not computable' if value is None else f'{value:.4g}'}")
        return f"Scores({', '.join(told)})"


def own_selection(runs: Sequence[RunFolder], split: str) -> Selection:
    """A split of the run's own cohort: ``val``, ``test`` or ``train``.

    With several folds each case is predicted once: by the model that did not see it (``val``), by the first that did
    (``train``), or by the average of all (``test``). A run trained without folds has no ``val``.

    Raises:
        InputError: if there is no such split, or it holds no case.
        CohortError: if the table changed since training.
    """
    groups = groups_of(runs, split)
    if not groups:
        raise InputError(f"this run has no {split} cases; choose another --split")
    config = runs[0].load_config()
    cohort, truths = read_again(config, runs[0])
    tasks = build_tasks(config, runs[0].load_plan().tasks)
    return Selection(
        split=split,
        folds=folds_of(runs),
        tasks=tasks,
        readers=tasks,
        groups=groups,
        cases={case.case_id: case for case in cohort.cases},
        truths=truths,
        learned=learned_by(runs, split, cohort.cases, truths),
        tested=sum(len(group.case_ids) for group in groups) if split == "test" else 0,
    )


@freed_memory_kept()
def evaluate_selection(
    selection: Selection,
    out: Path,
    *,
    device: DeviceName = "auto",
    progress: Progress = silent,
) -> Scores:
    """Predict and score; writes ``metrics.json``, ``cases.csv`` and masks into ``out``, whose last evaluation goes.

    Raises:
        InputError: if a file changed since training.
        ArtefactError: if a checkpoint is damaged; ``out`` stays as it was if that is one of the first group's.
        BusyRunError: if another process writes into ``out``.
    """
    # refused before anything of the last evaluation goes
    predictor = Predictor(selection.groups[0].models, device, to_first=selection.to_first)
    make_private_folder(out)
    with output_lock(out, answer_folders(out)):
        return _evaluated(selection, out, predictor, device, progress)


def _evaluated(selection: Selection, out: Path, predictor: Predictor, device: DeviceName, progress: Progress) -> Scores:
    _begin(selection, out)
    scored: dict[str, list[ScoredCase]] = {name: [] for name in selection.scored}
    moved: dict[str, list[Moved]] = {}
    rows: dict[str, dict[str, dict[str, Cell]]] = {}
    entries: list[dict[str, Any]] = []
    unfinished: list[dict[str, Any]] = []
    outside: list[Sequence[str]] = []
    for number, group in enumerate(selection.groups):
        predictor = Predictor(group.models, device, to_first=selection.to_first) if number else predictor
        unfinished += predictor.unfinished
        reference, fitted = group.reference(), group.fitted()
        _note_test_access(selection, group)
        for case_id in group.case_ids:
            case = selection.cases[case_id]
            prediction = predictor.predict(case, with_reference=selection.checked is None)
            write_answers(prediction, out)
            outside.append(prediction.outside_training)
            found = score_case(selection, case, prediction, group.fold_number, reference, fitted)
            _collect(scored, found)
            _extend(moved, moved_cases(fitted, found, prediction, prediction.at_reference))
            entries.append(
                {"case_id": case_id, "fold": group.fold, "activations": prediction.activations}
                | ({"at_reference": prediction.at_reference} if prediction.at_reference else {})
            )
            rows[case_id] = _row(selection.scored, case, group.fold_cell, found)
            progress("evaluate", len(rows), selection.total)
    told = {"unfinished": unfinished, "outside_training": _outside(selection, outside)}
    scores = _scores(_telling(selection, told), scored, moved, out)
    for name, cases in scores.cases.items():
        for entry in cases:
            own = {**entry.scores, **entry.reference}
            rows[entry.case_id][name].update({f"{name}/{key}": value for key, value in own.items()})
    write_json(out / METRICS, scores.metrics)
    write_table(_joined([list(row.values()) for row in rows.values()]), out / CASES)
    write_json(out / ACTIVATIONS, entries)
    return scores


def _begin(selection: Selection, out: Path) -> None:
    """Make the folder this evaluation's, without the numbers of the last one, whose masks go one by one."""
    # empty until this evaluation is whole: nobody may write a page from its masks and the last one's answers, and after
    # a kill the masks are known as an evaluation's
    write_json(out / ACTIVATIONS, [])
    take_over(selection, out)
    for name in (METRICS, CASES, PAGE):
        (out / name).unlink(missing_ok=True)
    if selection.checked is not None:
        write_json(out / FINDINGS, [finding.to_json() for finding in selection.checked.findings])


def _note_test_access(selection: Selection, group: Group) -> None:
    """Leave a line in each run whose test split is opened: whenever its labels are read, also for the page alone."""
    if selection.tested:
        for run in group.models:
            append_line(run.test_access, f'{{"split": "test", "cases": {selection.tested}}}')


def stored_answers(folder: Path) -> list[dict[str, Any]]:
    """Case, fold and activations of each case of the evaluation in a folder; none if it is absent or unfinished."""
    path = folder / ACTIVATIONS
    held: list[dict[str, Any]] = read_json(path, limit_bytes=MAX_ACTIVATIONS_BYTES) if path.is_file() else []
    return held


def load_scores(selection: Selection, folder: Path) -> Scores:
    """An evaluation again from its files, so that its page can be written anew.

    Masks and labels are read back and every metric is computed again; the network is not run.

    Raises:
        InputError: if ``folder`` holds no whole evaluation, or one of other cases.
    """
    entries = {entry["case_id"]: entry for entry in stored_answers(folder)}
    if set(entries) != {case_id for group in selection.groups for case_id in group.case_ids}:
        raise InputError(f"{folder.name} was evaluated on other cases than there are now; evaluate again")
    scored: dict[str, list[ScoredCase]] = {name: [] for name in selection.scored}
    moved: dict[str, list[Moved]] = {}
    for group in selection.groups:
        reference, fitted = group.reference(), group.fitted()
        _note_test_access(selection, group)
        for case_id in group.case_ids:
            masks = {
                name: read_label(folder / file) if isinstance(task, LabelTask) else read_image(folder / file)
                for name, task in selection.tasks.items()
                if isinstance(task, VoxelTask) and (file := answer_file(name, case_id, task)) is not None
            }
            results = assemble(selection.tasks, masks, entries[case_id]["activations"])
            found = score_case(selection, selection.cases[case_id], results, group.fold_number, reference, fitted)
            _collect(scored, found)
            _extend(moved, moved_cases(fitted, found, results, entries[case_id].get("at_reference", {})))
    # what is told is how far the models were that answered: they may be trained to their end by now
    written = read_json(folder / METRICS, limit_bytes=MAX_ACTIVATIONS_BYTES)
    told = {key: written.get(key) for key in ("unfinished", "outside_training")}
    return _scores(_telling(selection, told), scored, moved, folder)


def _telling(selection: Selection, told: Mapping[str, Any]) -> Selection:
    """The selection, with how far the models were that are not trained to their end, and what they met first here."""
    return replace(selection, facts={**selection.facts, **{key: value for key, value in told.items() if value}})


def _outside(selection: Selection, found: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How many cases of another cohort lie outside what the model was trained on, and in what; warned about."""
    strange = [names for names in found if names]
    if selection.checked is None or not strange:
        return {}
    counts = Counter(name for names in strange for name in names)
    logger.warning(
        "[B162] %d of %d cases lie outside what the model was trained on (%s): low scores may be the units' fault or "
        "the scanner's",
        len(strange), len(found), ", ".join(f"{name} in {count}" for name, count in counts.items()),
    )  # fmt: skip
    return {"cases": len(strange), "in": dict(counts)}


def _scores(
    selection: Selection,
    scored: Mapping[str, Sequence[ScoredCase]],
    moved: Mapping[str, Sequence[Moved]],
    folder: Path,
) -> Scores:
    """Everything that is known once all cases are predicted."""
    tasks = selection.scored
    scored = {name: _told(selection, task, scored[name]) for name, task in tasks.items()}
    within = {name: within_estimates(task, scored[name]) for name, task in tasks.items()}
    metrics = metrics_json(
        selection.split, selection.folds, selection.total, tasks, scored, selection.learned, selection.facts, within
    )
    for name, pairs in moved.items():
        task = tasks[name]
        assert isinstance(task, CaseTask)
        metrics["tasks"][name]["metrics"] |= moved_json(task, pairs)
    for name, parts in cohort_scores(selection, scored).items():
        metrics["tasks"][name]["cohorts"] = parts
    images = {name: case.images for name, case in selection.cases.items()}
    return Scores(selection.split, selection.folds, tasks, scored, metrics, folder, images, selection.readers, within)


def _told(selection: Selection, task: Task, cases: Sequence[ScoredCase]) -> Sequence[ScoredCase]:
    """A task's cases with what the other cases tell of each."""
    if isinstance(task, CaseTask) and selection.is_out_of_fold:
        return task.out_of_fold(cases)
    if isinstance(task, CaseTask) and selection.checked is not None:
        return task.among_themselves(cases)
    return cases


def _collect(scored: dict[str, list[ScoredCase]], found: Mapping[str, ScoredCase]) -> None:
    for name, entry in found.items():
        if entry.truth is not None:
            # volumes are on the disk by now, and those of a whole cohort are more than fits the memory
            scored[name].append(replace(entry, result=replace(entry.result, mask=None, map=None)))


def _extend(moved: dict[str, list[Moved]], found: Mapping[str, Moved]) -> None:
    for name, pair in found.items():
        moved.setdefault(name, []).append(pair)


def metrics_json(
    split: str,
    folds: Sequence[int | str],
    cases: int,
    tasks: Mapping[str, Task],
    scored: Mapping[str, Sequence[ScoredCase]],
    learned: Mapping[str, Learned],
    facts: Mapping[str, Any] | None = None,
    within: Mapping[str, Mapping[str, Estimate]] | None = None,
) -> dict[str, Any]:
    """The content of ``metrics.json``.

    Args:
        split, folds, cases, tasks, scored: what was scored.
        learned: per task what each fold's model was trained on; empty for another cohort.
        facts: further keys.
        within: per task what :func:`medmtl.evaluation.site.within_estimates` says, where that was asked before.
    """
    body: dict[str, Any] = {}
    for name, task in tasks.items():
        metrics = task.metrics(scored[name])
        own = (within or {}).get(name)
        by_site = site_estimates(task, scored[name], learned.get(name), own) if isinstance(task, CaseTask) else {}
        first = headline(task, by_site) if isinstance(task, CaseTask) else None
        body[name] = {
            "kind": task.kind,
            "labelled": len(scored[name]),
            "primary": next(iter(metrics)),
            **({"headline": first} if first else {}),
            "metrics": {metric: estimate.to_json() for metric, estimate in (metrics | by_site).items()},
        }
    note = "resubstitution: these cases were trained on" if split == "train" else CONDITIONAL
    head = {"schema": 1, "split": split, "folds": list(folds), "cases": cases, "note": note, **(facts or {})}
    return {**head, "tasks": body}


def _row(
    tasks: Mapping[str, Task], case: Case, fold: int | str, found: Mapping[str, ScoredCase]
) -> dict[str, dict[str, Cell]]:
    """Who it is and whose model answered, then one part per task."""
    who: dict[str, Cell] = {"case_id": case.case_id, "patient": case.patient, "site": case.site, "fold": fold}
    parts: dict[str, dict[str, Cell]] = {"": who}
    for name, entry in found.items():
        task = tasks[name]
        row: dict[str, Cell] = {}
        if isinstance(task, CaseTask):
            row.update(task.truth_cells(entry.truth))
        elif isinstance(task, BoxTask):
            row[f"{name}_true"] = None if entry.truth is None else len(entry.truth)
        else:
            row[f"{name}_true"] = "" if entry.truth is None else entry.truth.name
        file = answer_file(name, case.case_id, task)
        if file is not None:
            row[name] = file
        row.update(entry.result.cells(name))
        row.update({f"{name}/{metric}": value for metric, value in entry.scores.items()})
        parts[name] = row
    return parts


def _joined(rows: Sequence[Sequence[dict[str, Cell]]]) -> list[dict[str, Cell]]:
    """Rows whose columns stand task by task, also where the first case has no label and so no metrics."""
    columns = [tuple(dict.fromkeys(name for part in parts for name in part)) for parts in zip(*rows, strict=True)]
    return [
        {name: part.get(name) for part, names in zip(parts, columns, strict=True) for name in names} for parts in rows
    ]
