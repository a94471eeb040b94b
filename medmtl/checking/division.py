"""How the cohort is divided, and what a part of it then lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

from medmtl.checking.whole import Truths, fits
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Finding, Findings
from medmtl.data.split import Splits, from_column, make_splits
from medmtl.data.split_file import from_file
from medmtl.errors import CohortError
from medmtl.tasks.base import CaseTask, Task
from medmtl.tasks.voxel import LabelTask


def divide(
    config: Config, tasks: Mapping[str, Task], cohort: Cohort, truths: Truths, findings: Findings
) -> Splits | None:
    """The splits as configured, or None where they were refused.

    Args:
        config: the resolved configuration.
        tasks: its tasks, unfitted.
        cohort: its rows; those left out for an image count too.
        truths: task -> case id -> target.
        findings: gets every fault.
    """
    cases = cohort.identified
    labels = _strata(cases, config.cohort.optional, tasks, truths)
    section = config.split
    try:
        if section.column is not None:
            return from_column(cases, labels, column=section.column)
        if section.file is not None:
            return from_file(section.file, cases, labels, findings)
        return make_splits(cases, labels, folds=section.folds, seed=section.seed, test=section.test)
    except CohortError as error:
        findings.extend([found for found in error.findings if not (cohort.unidentified and _needs_all_rows(found))])
        return None


def _needs_all_rows(finding: Finding) -> bool:
    """Whether a row that could not be read may be what is missing: in an empty part, or under an unknown id."""
    return finding.code == "B024" or (finding.code, finding.key) == ("B023", "split.file")


def check_parts(
    config: Config, tasks: Mapping[str, Task], splits: Splits, truths: Truths, refused: Set[str], findings: Findings
) -> None:
    """What each fold must train on, and what a validation or test part cannot score.

    Args:
        config: the resolved configuration.
        tasks: its tasks, unfitted.
        splits: of the cohort.
        truths: task -> case id -> target.
        refused: tasks of which a cell was refused; they are not judged.
        findings: gets every fault.
    """
    made = config.split.column is None and config.split.file is None
    for name, task in tasks.items():
        labelled = truths[name]
        if name in refused or not labelled:
            continue
        strata = _classes(task, labelled)
        counts = Counter(stratum for held in strata.values() for stratum in held)
        rare = {stratum: count for stratum, count in counts.items() if count < len(splits.folds)}
        if made and rare:
            found = ", ".join(f"{count} of {stratum}" for stratum, count in sorted(rare.items()))
            expected, fix = f"{len(splits.folds)} cases of every class", "lower split.folds, or add cases"
            findings.reject("B115", key=f"tasks.{name}", found=found, expected=expected, fix=fix)
        elif _trains(task, splits, labelled, findings):
            _warn_of_gaps(name, splits, labelled, strata, findings)


def _trains(task: Task, splits: Splits, labelled: Mapping[str, Any], findings: Findings) -> bool:
    """Whether every fold's training part holds what the task learns from; the first that does not is the finding."""
    # what fails on all cases was found on all cases
    judged = not task.voxel and fits(task, list(labelled.values()), "", Findings())
    for number, fold in enumerate(splits.folds):
        truths = [labelled[case_id] for case_id in fold.train if case_id in labelled]
        if not truths:
            found, fix = f"no labelled case in train of fold {number}", "use fewer folds or another split"
            findings.reject("B116", key=f"tasks.{task.name}", found=found, expected="labels in every fold", fix=fix)
            return False
        if judged and not fits(task, truths, f" in train {number}", findings):
            return False
    return True


def _classes(task: Task, labelled: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Case id -> strata that every part needs, for a task whose metrics compare cases of different strata; otherwise
    nothing."""
    if not isinstance(task, CaseTask) or task.ranking_metric is None:
        return {}
    return {name: held - task.may_lack for name, held in _sets(task, labelled).items()}


def _sets(task: Task, labelled: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Case id -> all of its strata."""
    found = task.strata(labelled)
    return {name: frozenset({held}) if isinstance(held, str) else held for name, held in found.items()}


def _warn_of_gaps(
    name: str, splits: Splits, labelled: Mapping[str, Any], strata: Mapping[str, frozenset[str]], findings: Findings
) -> None:
    """One warning for each class, or for all labels, that a part which is scored does not hold."""
    parts = [(f"val {number}", fold.val) for number, fold in enumerate(splits.folds)]
    parts += [("test", splits.test)] if splits.test else []
    everything = {stratum for held in strata.values() for stratum in held}
    gaps: dict[str, list[str]] = {}
    for place, ids in parts:
        scored = [case_id for case_id in ids if case_id in labelled]
        present = {stratum for case_id in scored for stratum in strata.get(case_id, ())}
        for missing in sorted(everything - present) if scored else [""]:
            gaps.setdefault(missing, []).append(place)
    for missing, gap in sorted(gaps.items()):
        places = ", ".join(gap).replace(", val ", ", ")
        found = f"{f'no case of {missing}' if missing else 'no label'} in {places}"
        expected, fix = "every class in every part", "metrics that need it are reported as not computable there"
        findings.warn("B025", key=f"tasks.{name}", found=found, expected=expected, fix=fix)


def places(config: Config, splits: Splits | None) -> dict[str, tuple[str, ...]]:
    """Case id -> its part in each fold, where the user chose the parts; chance may put two patients anywhere."""
    if splits is None or (config.split.column is None and config.split.file is None):
        return {}
    found: dict[str, list[str]] = {}
    for fold in splits.folds:
        for part, ids in (("train", fold.train), ("val", fold.val), ("test", splits.test)):
            for case_id in ids:
                found.setdefault(case_id, []).append(part)
    return {case_id: tuple(parts) for case_id, parts in found.items()}


def _strata(
    cases: Sequence[Case], optional: Sequence[str], tasks: Mapping[str, Task], truths: Truths
) -> dict[str, frozenset[str]]:
    """What each fold should hold its share of: sites, cohorts, and the cases that have each of the optional channels;
    per task labelled cases, its strata, and labels not annotated."""
    by_task = {name: _sets(task, truths[name]) for name, task in tasks.items() if truths[name]}
    shared: dict[frozenset[str], frozenset[str]] = {}  # a large cohort has few different ones
    labels: dict[str, frozenset[str]] = {}
    for case in cases:
        carried = {f"site={case.site}"} if case.site is not None else set()
        carried |= {f"cohort={case.cohort}"} if case.cohort is not None else set()
        carried |= {f"channel={name}" for name in optional if name in case.images}
        for name, strata in by_task.items():
            if case.case_id in strata:
                carried |= {f"{name}:labelled", *(f"{name}:{stratum}" for stratum in strata[case.case_id])}
                task = tasks[name]
                unknown = task.unannotated(case) if isinstance(task, LabelTask) else ()
                carried |= {f"{name}:without {label}" for label in unknown}
        labels[case.case_id] = shared.setdefault(frozenset(carried), frozenset(carried))
    return labels
