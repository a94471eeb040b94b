"""From a configuration to a run folder that is ready to train: check, split, plan, prepare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from medmtl.build import build_model, build_tasks
from medmtl.checking import Checked, check_cohort
from medmtl.checking.known import Known, known_of
from medmtl.checking.outputs import cohort_files
from medmtl.config import Config, dump
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.covariates import learn
from medmtl.data.formats import strict_yaml
from medmtl.data.manifest import with_hashes
from medmtl.data.members import members
from medmtl.data.prepared import Preparation
from medmtl.data.split import Splits
from medmtl.device import Device, DeviceName, describe_device, describe_hardware
from medmtl.errors import ConfigError, InputError
from medmtl.planning import CaseFacts, Plan, make_plan, with_statistics
from medmtl.planning.shown_labels import shown_labels
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.run_place import refuse_place, refuse_taken
from medmtl.tasks.base import Task
from medmtl.training.ranks import refuse_too_many
from medmtl.training.room import DiskNeed, predict_disk, refuse_full_disk, refuse_small_shared_memory
from medmtl.training.transfer import Initial, refuse_leak, refuse_other_order, seen_by, take_trunk
from medmtl.training.unshown import refuse_unshown

FoldName = int | Literal["none"]


def refuse_fold(fold: object, *words: str) -> None:
    """Refuse what is no fold's number and none of the words, before any work.

    Raises:
        InputError: it is neither.
    """
    if fold not in words and (isinstance(fold, bool) or not isinstance(fold, int)):
        raise InputError(f"fold wants a number or {' or '.join(map(repr, words))}, found {fold!r}", code="B164")


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
        """Training and validation cases of a fold; see :func:`medmtl.data.members.members`."""
        return members(self.checked.cohort.cases, self.splits, fold)


def make_ready(config: Config, *, progress: Progress = silent) -> Ready:
    """Check the cohort, which divides its patients, and log what the check warned about.

    Raises:
        CohortError: if anything was rejected; carries all findings.
    """
    tasks = build_tasks(config)
    checked = check_cohort(config, tasks, progress)
    checked.refuse()
    checked.tell("medmtl check lists all with --json FILE, and a run in its findings.json")
    splits = checked.splits
    assert splits is not None  # a split that cannot be made is a reject
    checked = replace(checked, cohort=with_hashes(checked.cohort, checked.sha256))
    return Ready(config, tasks, checked, splits)


def plan_fold(ready: Ready, fold: FoldName, device: Device) -> Plan:
    """Geometry, network, step and room on disk for a fold, before anything is prepared."""
    return _plan_and_need(ready, fold, device)[0]


def _plan_and_need(ready: Ready, fold: FoldName, device: Device) -> tuple[Plan, DiskNeed]:
    train, val = ready.members(fold)
    held = set(ready.splits.test)
    fingerprints = [f for name, f in ready.checked.fingerprints.items() if name not in held]
    plan = make_plan(ready.config, ready.tasks, fingerprints, len(train), device)
    plan = replace(plan, covariates=learn(ready.config.used_covariates, train))
    need = predict_disk(ready.config, ready.checked, plan, [*train, *val])
    refuse_unshown(plan, ready.tasks, train, ready.checked.truths)
    return replace(plan, disk_bytes=need.bytes, reasons={**plan.reasons, "disk": need.reason}), need


def refuse_out(ready: Ready, out: Path, *, folds: bool = False) -> None:
    """Refuse a place for the run, or with ``folds`` for the folder of its folds; see :func:`refuse_place`."""
    tables = [section.table for section in ready.config.cohorts or (ready.config.cohort,)]
    refuse_place(out, *tables, *_folders(ready.checked.cohort.cases), folds=folds)


def refuse_out_unchecked(config: Config, out: Path, *, folds: bool) -> None:
    """As :func:`refuse_out` before the cohort is checked, by what its table names and without a try of the disk.

    Also refused is a place from which the run's own configuration could not name what it reads.
    """
    refuse_taken(out, *{path.parent for path in cohort_files(config, build_tasks(config))}, folds=folds)
    try:
        strict_yaml.parse(dump(config, out.resolve()))
    except ConfigError as error:
        raise InputError(
            f"a run at {out} would name its cohort by a path that no configuration may hold ({error}); rename that "
            "folder"
        ) from None


def start_run(
    ready: Ready,
    out: Path,
    fold: FoldName,
    device: DeviceName,
    progress: Progress = silent,
    processes: int = 1,
) -> RunFolder:
    """Prepare the cases, complete the plan and make the run folder appear, whole.

    Args:
        ready: the checked cohort.
        out: where the folder will be.
        fold: the fold.
        device: to train on.
        progress: called at every case.
        processes: that will share each batch.

    Raises:
        InputError: if ``out`` exists and is not empty, or a file changed since the check.
        MachineError: if the device is absent, or the plan does not fit memory, disk or shared memory.
    """
    refuse_out(ready, out)
    donor, seen = _donor(ready, fold) or (None, [])
    plan, need = _plan_and_need(ready, fold, describe_device(device))
    refuse_too_many(processes, plan.batch, *([plan.case_view.batch] if plan.case_view else []))
    refuse_small_shared_memory(plan, ready.tasks)
    train, val = ready.members(fold)
    cache = open_cache(ready.config, out, plan.preparation)
    refuse_full_disk(out, need, cache, [*train, *val])
    _prepare(cache, out, plan, ready, [*train, *val], progress)
    plan = with_statistics(plan, ready.config, ready.tasks, *_facts(ready, plan, train, cache))
    initial = _initial(ready.config, plan, donor)
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
            "hardware": describe_hardware(plan.device),
            **_cohort_record(ready.checked, train),
            **({"init": {**initial.record, "seen": [record.to_json() for record in seen]}} if initial else {}),
            **({"processes": processes} if processes > 1 else {}),
        },
        initial=initial.tensors if initial else None,
    )


def _cohort_record(checked: Checked, train: Sequence[Case]) -> dict[str, Any]:
    """What the manifest says of the cohort, and of the part that is trained on."""
    cohort = checked.cohort
    return {
        "table_sha256": cohort.sha256,
        **({"tables_sha256": dict(cohort.tables)} if cohort.tables else {}),
        "patients": sorted({case.person for case in cohort.cases}),
        "files_sha256": dict(checked.sha256),
        "voxels_sha256": dict(checked.voxels),
        "trained": known_of(checked, train).to_json(),
    }


def default_cache(out: Path) -> Path:
    """Where prepared arrays lie if ``cache.folder`` says nothing."""
    return out.absolute().parent / ".medmtl-cache"


def open_cache(config: Config, out: Path, preparation: Preparation) -> PreparedCache:
    """The cache of prepared arrays: as configured, or ``.medmtl-cache`` beside the run."""
    return PreparedCache(config.cache.folder or default_cache(out), preparation)


def _prepare(cache: PreparedCache, out: Path, plan: Plan, ready: Ready, cases: Sequence[Case], tell: Progress) -> None:
    """Prepare the cases as each view wants them."""
    caches = [cache]
    if plan.case_view is not None and plan.case_view.preparation != plan.preparation:
        caches.append(open_cache(ready.config, out, plan.case_view.preparation))
    for number, one in enumerate(caches):
        one.ensure(
            cases,
            plan.workers,
            lambda done, total, before=number: tell("prepare", before * total + done, len(caches) * total),  # type: ignore[misc]
        )


def _donor(ready: Ready, fold: FoldName) -> tuple[RunFolder, list[Known]] | None:
    """The run whose trunk this one starts from and whom it has seen, none of whom is held out here."""
    if ready.config.init is None:
        return None
    place = ready.config.init.run
    # a cross-validated donor is one run per fold, of which the same one held out the same cases
    donor = RunFolder.open(own if (own := place / f"fold-{fold}").is_dir() else place)
    refuse_other_order(donor, tuple(ready.config.cohort.columns))
    held_out = {*(case.case_id for case in ready.members(fold)[1]), *ready.splits.test}
    seen = seen_by(donor)
    refuse_leak(donor, seen, [case for case in ready.checked.cohort.cases if case.case_id in held_out], ready.checked)
    return donor, seen


def _initial(config: Config, plan: Plan, donor: RunFolder | None) -> Initial | None:
    if donor is None:
        return None
    with torch.random.fork_rng():
        return take_trunk(donor, build_model(config, plan, build_tasks(config, plan.tasks)))


def _folders(cases: Sequence[Case]) -> set[Path]:
    return {path.parent for case in cases for path in (*case.images.values(), *case.files.values())}


def _facts(
    ready: Ready, plan: Plan, train: Sequence[Case], cache: PreparedCache
) -> tuple[list[CaseFacts], dict[str, list[Any]]]:
    chosen = {case.case_id for case in train}
    shown = shown_labels(plan, train, {name: ready.checked.learnable(name) for name in ready.checked.truths})
    truths = {name: [found[case_id] for case_id in found if case_id in chosen] for name, found in shown.items()}
    # what else a prepared case holds, its arrays and the open files behind them, is let go
    return [CaseFacts(held.native, held.statistics) for held in map(cache.get, train)], truths
