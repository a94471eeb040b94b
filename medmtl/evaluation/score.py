"""Predict the cases of a split and score them by the rules of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medmtl.build import build_tasks
from medmtl.checking import layout, read_targets
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort, read_cohort
from medmtl.data.finding import Findings
from medmtl.data.formats.nifti import read_label
from medmtl.data.manifest import with_hashes
from medmtl.data.split import Splits
from medmtl.errors import CohortError, InputError
from medmtl.evaluation.site import Learned, headline, site_estimates
from medmtl.files import append_line, make_private_folder, read_json, write_json
from medmtl.inference.predict import Predictor, assemble
from medmtl.inference.write import mask_file, write_masks, write_table
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import CaseTask, Cell, Result, ScoredCase, Task, VoxelTask

ACTIVATIONS = "activations.json"  # of the case tasks; with the masks beside it the page can be written again
MAX_ACTIVATIONS_BYTES = 1 << 28
SPLITS = ("train", "val", "test")
CONDITIONAL = "intervals are conditional on the trained models"


@dataclass(frozen=True)
class Scores:
    """An evaluated split.

    Attributes:
        split: ``val``, ``test`` or ``train``.
        folds: folds whose models predicted.
        tasks: the fitted tasks.
        cases: task -> labelled cases with prediction and reference.
        metrics: as in ``metrics.json``.
        folder: where everything was written.
        images: case id -> channel -> file.
    """

    split: str
    folds: tuple[int | str, ...]
    tasks: Mapping[str, Task]
    cases: Mapping[str, Sequence[ScoredCase]]
    metrics: Mapping[str, Any]
    folder: Path
    images: Mapping[str, Mapping[str, Path]]


def evaluate_split(
    runs: Sequence[RunFolder],
    split: str,
    out: Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: Progress = silent,
) -> Scores:
    """Predict and score one split; writes ``metrics.json``, ``cases.csv`` and masks into ``out``.

    With several folds each case is predicted once: by the model that did not see it (``val``), by the first that did
    (``train``), or by the average of all (``test``). A run trained without folds has no ``val``.

    Args:
        runs: one run folder, or one per fold.
        split: ``val``, ``test`` or ``train``.
        out: the evaluation folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called once per case.

    Raises:
        InputError: if there is no such split, or it holds no case.
        CohortError: if the cohort changed since training.
    """
    config = runs[0].load_config()
    groups = _groups(runs, split)
    total = sum(len(case_ids) for _, _, case_ids in groups)
    if total == 0:
        raise InputError(f"this run has no {split} cases; choose another --split")
    cohort, truths = read_again(config, runs[0])
    by_id = {case.case_id: case for case in cohort.cases}
    make_private_folder(out)
    # until this evaluation is whole, nobody may write a page from its masks and the last one's answers
    (out / ACTIVATIONS).unlink(missing_ok=True)
    scored: dict[str, list[ScoredCase]] = {name: [] for name in config.tasks}
    rows: list[list[dict[str, Cell]]] = []
    entries: list[dict[str, Any]] = []
    tasks: Mapping[str, Task] = {}
    for fold, models, case_ids in groups:
        predictor = Predictor(models, device)
        tasks = tasks or predictor.tasks
        if split == "test":
            for run in models:
                append_line(run.test_access, f'{{"split": "test", "cases": {len(case_ids)}}}')
        for case_id in case_ids:
            case = by_id[case_id]
            prediction = predictor.predict(case)
            write_masks(prediction, out)
            found = score_case(predictor.tasks, case, prediction, truths, fold)
            _collect(scored, found)
            entries.append({"case_id": case_id, "fold": fold, "activations": prediction.activations})
            rows.append(_row(case, found))
            progress("evaluate", len(rows), total)
    folds = _folds(runs)
    metrics = metrics_json(split, folds, total, tasks, scored, _learned(runs, split, cohort, truths))
    write_json(out / "metrics.json", metrics)
    write_table(_joined(rows), out / "cases.csv")
    write_json(out / ACTIVATIONS, entries)
    return Scores(split, folds, tasks, scored, metrics, out, {name: case.images for name, case in by_id.items()})


def load_scores(runs: Sequence[RunFolder], split: str, folder: Path) -> Scores:
    """An evaluation again from its files, so that its page can be written anew.

    Masks are read back and every metric is computed again; the network is not run.

    Raises:
        InputError: if the split was not evaluated into ``folder``.
    """
    stored = folder / ACTIVATIONS
    if not stored.is_file():
        raise InputError(f"the {split} split was not evaluated yet; run evaluate first")
    config = runs[0].load_config()
    cohort, truths = read_again(config, runs[0])
    by_id = {case.case_id: case for case in cohort.cases}
    tasks = build_tasks(config, runs[0].load_plan().tasks)
    scored: dict[str, list[ScoredCase]] = {name: [] for name in tasks}
    entries = read_json(stored, limit_bytes=MAX_ACTIVATIONS_BYTES)
    for entry in entries:
        case = by_id[entry["case_id"]]
        masks = {name: read_label(folder / mask_file(name, case.case_id)) for name, task in tasks.items() if task.voxel}
        results = assemble(tasks, masks, entry["activations"])
        _collect(scored, score_case(tasks, case, results, truths, entry["fold"]))
    folds = _folds(runs)
    metrics = metrics_json(split, folds, len(entries), tasks, scored, _learned(runs, split, cohort, truths))
    return Scores(split, folds, tasks, scored, metrics, folder, {name: case.images for name, case in by_id.items()})


def _collect(scored: dict[str, list[ScoredCase]], found: Mapping[str, ScoredCase]) -> None:
    for name, entry in found.items():
        if entry.truth is not None:
            scored[name].append(entry)


def read_again(config: Config, run: RunFolder) -> tuple[Cohort, Mapping[str, Mapping[str, Any]]]:
    """The run's cohort and its targets, refused if the table is not the one that was trained on.

    Each case knows the hashes that its files had when they were checked: whoever reads a changed one refuses it.

    Raises:
        CohortError: if the table changed or no longer reads.
    """
    tasks = build_tasks(config)
    findings = Findings()
    cohort = read_cohort(layout(config, tasks), findings)
    truths = read_targets(cohort, tasks, findings)
    rejected = findings.rejected()
    if rejected:
        raise CohortError(f"the cohort no longer reads as it did: {rejected[0].sentence()}", list(findings))
    manifest = run.load_manifest()
    if cohort.sha256 != manifest["table_sha256"]:
        raise CohortError(
            "[B031] the cohort's table changed since this run was trained; restore it, or train a new run"
        )
    return with_hashes(cohort, manifest.get("files_sha256", {})), truths


def score_case(
    tasks: Mapping[str, Task],
    case: Case,
    results: Mapping[str, Result],
    truths: Mapping[str, Mapping[str, Any]],
    fold: int | str,
) -> dict[str, ScoredCase]:
    """Each task's prediction beside its reference; ``truth`` is None where the case is not labelled.

    Raises:
        CohortError: if a label no longer has the shape of its image.
        InputError: if a label is not the one that was checked.
    """
    found: dict[str, ScoredCase] = {}
    for name, task in tasks.items():
        truth = truths[name].get(case.case_id)
        result = results[name]
        entry = ScoredCase(case.case_id, case.patient, case.site, _fold_number(fold), truth, result)
        if truth is not None and isinstance(task, VoxelTask):
            assert result.mask is not None
            reference = read_label(truth)
            if reference.array.shape != result.mask.array.shape:
                raise CohortError(
                    f"case {case.case_id!r}: the label {truth.name} no longer has the shape of its image; restore it"
                )
            case.refuse_change(truth, reference.sha256)
            scores = task.mask_scores(result.mask.array, reference.array, reference.grid.spacing)
            entry = replace(entry, scores=scores)
        elif truth is not None and isinstance(task, CaseTask):
            entry = replace(entry, scores=task.result_scores(result, truth))
        found[name] = entry
    return found


def metrics_json(
    split: str,
    folds: Sequence[int | str],
    cases: int,
    tasks: Mapping[str, Task],
    scored: Mapping[str, Sequence[ScoredCase]],
    learned: Mapping[str, Learned],
) -> dict[str, Any]:
    """The content of ``metrics.json``; ``learned`` is per task what each fold's model was trained on."""
    body: dict[str, Any] = {}
    for name, task in tasks.items():
        metrics = task.metrics(scored[name])
        by_site = site_estimates(task, scored[name], learned[name]) if isinstance(task, CaseTask) else {}
        first = headline(task, by_site) if isinstance(task, CaseTask) else None
        body[name] = {
            "kind": task.kind,
            "labelled": len(scored[name]),
            "primary": next(iter(metrics)),
            **({"headline": first} if first else {}),
            "metrics": {metric: estimate.to_json() for metric, estimate in (metrics | by_site).items()},
        }
    note = "resubstitution: these cases were trained on" if split == "train" else CONDITIONAL
    return {"schema": 1, "split": split, "folds": list(folds), "cases": cases, "note": note, "tasks": body}


def _groups(runs: Sequence[RunFolder], split: str) -> list[tuple[int | str, list[RunFolder], list[str]]]:
    """(fold, models, case ids): who predicts what; no case stands twice."""
    if split not in SPLITS:
        raise InputError(f"no split is called {split!r}; known: {', '.join(SPLITS)}")
    splits, folds = runs[0].load_splits(), _folds(runs)
    if split == "test":
        return [(folds[0], list(runs), list(splits.test))] if splits.test else []
    groups: list[tuple[int | str, list[RunFolder], list[str]]] = []
    taken: set[str] = set()
    for fold, run in zip(folds, runs, strict=True):
        members = _members(splits, fold, split)
        case_ids = [case_id for case_id in members if case_id not in taken]
        taken.update(case_ids)
        if case_ids:
            groups.append((fold, [run], case_ids))
    return groups


def _learned(
    runs: Sequence[RunFolder], split: str, cohort: Cohort, truths: Mapping[str, Mapping[str, Any]]
) -> dict[str, Learned]:
    """Task -> fold that predicted -> site and target of the labelled cases that its models were trained on."""
    splits, folds = runs[0].load_splits(), _folds(runs)
    trained = {_fold_number(fold): _members(splits, fold, "train") for fold in folds}
    if split == "test":  # every model answers, under the first fold's number
        trained = {_fold_number(folds[0]): tuple(sorted(set().union(*trained.values())))}
    site = {case.case_id: case.site for case in cohort.cases}
    return {
        name: {fold: [(site[i], targets[i]) for i in case_ids if i in targets] for fold, case_ids in trained.items()}
        for name, targets in truths.items()
    }


def _folds(runs: Sequence[RunFolder]) -> tuple[int | str, ...]:
    return tuple(run.load_manifest()["fold"] for run in runs)


def _members(splits: Splits, fold: int | str, split: str) -> tuple[str, ...]:
    if isinstance(fold, int):
        return splits.folds[fold].val if split == "val" else splits.folds[fold].train
    everybody = splits.folds[0]
    return (*everybody.train, *everybody.val) if split == "train" else ()


def _fold_number(fold: int | str) -> int:
    return fold if isinstance(fold, int) else 0


def _row(case: Case, found: Mapping[str, ScoredCase]) -> list[dict[str, Cell]]:
    """Who it is, then one part per task."""
    parts: list[dict[str, Cell]] = [{"case_id": case.case_id, "patient": case.patient, "site": case.site}]
    for name, entry in found.items():
        row: dict[str, Cell] = {}
        if entry.result.mask is not None:
            row[f"{name}_true"] = "" if entry.truth is None else entry.truth.name
            row[name] = mask_file(name, case.case_id)
        else:
            row[f"{name}_true"] = entry.truth
        row.update(entry.result.cells(name))
        row.update({f"{name}/{metric}": value for metric, value in entry.scores.items()})
        parts.append(row)
    return parts


def _joined(rows: Sequence[Sequence[dict[str, Cell]]]) -> list[dict[str, Cell]]:
    """Rows whose columns stand task by task, also where the first case has no label and so no metrics."""
    columns = [tuple(dict.fromkeys(name for part in parts for name in part)) for parts in zip(*rows, strict=True)]
    return [
        {name: part.get(name) for part, names in zip(parts, columns, strict=True) for name in names} for parts in rows
    ]
