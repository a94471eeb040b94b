"""From a configuration to a run folder that is ready to train: check, split, plan, prepare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmtl.build import build_tasks
from medmtl.checking import Checked, check_cohort
from medmtl.config import Config
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.split import Splits, from_column, from_file, make_splits
from medmtl.device import Device, describe_device
from medmtl.errors import InputError
from medmtl.planning import Plan, TrainingFacts, make_plan, with_statistics
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import Task

FoldName = int | Literal["none"]


@dataclass(frozen=True)
class Ready:
    """A checked cohort with its splits.

    Attributes:
        config, tasks: the experiment; tasks are unfitted.
        checked: of the check; free of rejects.
        splits: of the patients.
    """

    config: Config
    tasks: dict[str, Task]
    checked: Checked
    splits: Splits

    def members(self, fold: FoldName) -> tuple[list[Case], list[Case]]:
        """Training and validation cases of a fold; ``none`` trains on all but the test split.

        Raises:
            InputError: if there is no such fold.
        """
        cases = {case.case_id: case for case in self.checked.cohort.cases}
        if fold == "none":
            held = set(self.splits.test)
            return [case for name, case in cases.items() if name not in held], []
        if not 0 <= fold < len(self.splits.folds):
            raise InputError(f"fold {fold} does not exist; the split has folds 0 to {len(self.splits.folds) - 1}")
        chosen = self.splits.folds[fold]
        return [cases[name] for name in chosen.train], [cases[name] for name in chosen.val]


def make_ready(config: Config, *, strict: bool = False, progress: Progress = silent) -> Ready:
    """Check the cohort and divide its patients.

    Raises:
        CohortError: if anything was rejected; carries all findings.
    """
    tasks = build_tasks(config)
    checked = check_cohort(config, tasks, progress)
    checked.refuse(strict=strict)
    return Ready(config, tasks, checked, divide(config, tasks, checked))


def plan_fold(ready: Ready, fold: FoldName, device: Device) -> Plan:
    """Geometry, network and step for a fold, before anything is prepared."""
    train, _ = ready.members(fold)
    held = set(ready.splits.test)
    fingerprints = [f for name, f in ready.checked.fingerprints.items() if name not in held]
    return make_plan(ready.config, ready.tasks, fingerprints, len(train), device)


def start_run(
    ready: Ready, out: Path, fold: FoldName, device: Literal["auto", "cpu", "cuda"], progress: Progress = silent
) -> RunFolder:
    """Prepare the cases, complete the plan and make the run folder appear, whole.

    Raises:
        InputError: if ``out`` exists and is not empty, or the fold leaves a task without labels.
        MachineError: if the device is absent or the plan does not fit.
    """
    RunFolder.refuse_place(out, ready.config.cohort.table)
    plan = plan_fold(ready, fold, describe_device(device))
    train, val = ready.members(fold)
    cache = open_cache(ready.config, out, plan)
    cache.ensure([*train, *val], plan.workers, lambda done, total: progress("prepare", done, total))
    plan = with_statistics(plan, ready.config, ready.tasks, _facts(ready, train, cache))
    return RunFolder.create(
        out,
        config=ready.config,
        plan=plan.to_json(),
        splits=ready.splits.to_json(),
        findings=[finding.to_json() for finding in ready.checked.findings],
        manifest={
            "fold": fold,
            "seed": ready.config.training.seed,
            "device": plan.device,
            "table_sha256": ready.checked.cohort.sha256,
            "files_sha256": dict(ready.checked.sha256),
        },
    )


def open_cache(config: Config, out: Path, plan: Plan) -> PreparedCache:
    """The cache of prepared arrays: as configured, or ``.medmtl-cache`` beside the run."""
    return PreparedCache(config.cache.folder or out.absolute().parent / ".medmtl-cache", plan.preparation)


def divide(config: Config, tasks: Mapping[str, Task], checked: Checked) -> Splits:
    """The patients of a checked cohort in folds, as ``split`` says.

    Raises:
        CohortError: if they cannot be divided so; carries the findings.
    """
    cases = checked.cohort.cases
    strata = _strata(cases, tasks, checked.truths)
    if config.split.column is not None:
        return from_column(cases, strata)
    if config.split.file is not None:
        return from_file(config.split.file, cases, strata)
    return make_splits(cases, strata, folds=config.split.folds, seed=config.split.seed, test=config.split.test)


def _strata(
    cases: Sequence[Case], tasks: Mapping[str, Task], truths: Mapping[str, Mapping[str, Any]]
) -> dict[str, frozenset[str]]:
    """What each fold should hold its share of: labelled cases per task, each task's strata, and sites."""
    strata: dict[str, set[str]] = {case.case_id: set() for case in cases}
    for case in cases:
        if case.site is not None:
            strata[case.case_id].add(f"site={case.site}")
    for name, task in tasks.items():
        for case_id, stratum in task.strata(truths[name]).items():
            strata[case_id] |= {f"{name}:labelled", f"{name}:{stratum}"}
    return {case_id: frozenset(found) for case_id, found in strata.items()}


def _facts(ready: Ready, train: Sequence[Case], cache: PreparedCache) -> TrainingFacts:
    chosen = {case.case_id for case in train}
    truths = {
        name: [truth for case_id, truth in labelled.items() if case_id in chosen]
        for name, labelled in ready.checked.truths.items()
    }
    empty = [name for name, found in truths.items() if not found]
    if empty:
        raise InputError(
            f"no training case of this fold is labelled for {', '.join(empty)}; use fewer folds or another split"
        )
    return TrainingFacts([cache.get(case) for case in train], truths)
