"""Another cohort against a trained run: an external validation, and when it may not be called one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import Checked, check_cohort
from medmtl.checking.known import inherited, trained_on, whole_cohort
from medmtl.config import Config
from medmtl.errors import InputError
from medmtl.evaluation.selection import Group, Selection, folds_of
from medmtl.files import safe_name
from medmtl.inference.inputs import matched_channels, same_covariates
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import Task

logger = logging.getLogger(__name__)

EXTERNAL_SPLIT = "all"
EXTERNAL_NOTE = (
    "external validation: no patient's id and no image, by its bytes or voxels, is also in the run's own cohort"
)
SHOWN = 3  # overlapping patients that an error names
REMEDY = (
    "remove them (or rename ids that stand for other persons), or pass --allow-overlap, which marks the result as "
    "not external"
)


def refuse_part(split: str | None) -> None:
    """Refuse to take a part of another cohort, which has none.

    Args:
        split: what was asked for; None and ``all`` are all cases.

    Raises:
        InputError: if it is anything else.
    """
    if split not in (None, EXTERNAL_SPLIT):
        raise InputError(f"all cases of another cohort are scored; leave --split {split} away")


def external_name(config: Path) -> str:
    """The name of the evaluation of another cohort, by its configuration's."""
    return f"{safe_name(config.stem)}-{EXTERNAL_SPLIT}"


def external_selection(
    runs: Sequence[RunFolder], config: Path, *, allow_overlap: bool = False, progress: Progress = silent
) -> Selection:
    """Every case of another cohort, after its own check, predicted by the average of all runs.

    Tasks and channels are matched by name; tasks that the other configuration lacks are skipped with a warning. Its
    labels are read by its own columns and label values.

    Args:
        runs: one run folder, or one per fold.
        config: the other cohort's configuration; only ``cohort`` and ``tasks`` are read.
        allow_overlap: go on although it holds a patient or an image of the run's own cohort, and say so.
        progress: called once per case that is checked.

    Raises:
        InputError: if no task is in common, a task means something else there, a channel is absent, or the cohorts
            overlap.
        CohortError: if the check rejects anything.
    """
    own = runs[0].load_config()
    tasks = build_tasks(own, runs[0].load_plan().tasks)
    other, skipped = _matched(configuration.load(config), config, own, tasks)
    readers = build_tasks(other)
    for name, reader in readers.items():
        try:
            tasks[name].same_target(reader)
        except ValueError as error:
            raise InputError(f"{config.name}: tasks.{name} is not what the model predicts: {error}") from None
    checked = check_cohort(other, readers, progress, to_learn=False)
    checked.refuse()
    shared, patients = _overlap(runs, checked)
    if shared and not allow_overlap:
        more = ", ..." if len(patients) > SHOWN else ""
        named = f" (patients {', '.join(patients[:SHOWN])}{more})" if patients else ""
        raise InputError(f"{config.name} is no external cohort: {shared}{named}; {REMEDY}")
    note = f"not external: {shared}" if shared else EXTERNAL_NOTE
    folds = folds_of(runs)
    cases = {case.case_id: case for case in checked.cohort.cases}
    return Selection(
        split=EXTERNAL_SPLIT,
        folds=folds,
        tasks=tasks,
        readers=readers,
        groups=[Group(folds[0], runs, list(cases))],
        cases=cases,
        truths=checked.truths,
        facts={"cohort": config.stem, "external": not shared, "skipped": skipped, "note": note},
        checked=checked,
        config=config,
        tested=_tested(runs[0], checked) if shared else 0,
        to_first=other.cohort.resample == "to_first",
    )


def _tested(run: RunFolder, checked: Checked) -> int:
    """How many cases are of the run's own test part, which all its folds share: by case id, and patient or image."""
    test, own = frozenset(run.load_splits().test), whole_cohort(run.load_manifest())
    return sum(case.case_id in test and own.has_case(case, checked) for case in checked.cohort.cases)


def _matched(other: Config, path: Path, own: Config, tasks: Mapping[str, Task]) -> tuple[Config, list[str]]:
    """The other configuration with the model's channels, covariates and tasks alone, in the model's order, and what
    it lacks."""
    other = matched_channels(other, tuple(own.cohort.columns), own.cohort.optional, path.name)
    same_covariates(own, other, path.name)
    common = {name: other.tasks[name] for name in tasks if name in other.tasks}
    if not common:
        raise InputError(
            f"{path.name} has none of the model's tasks ({', '.join(tasks)}); tasks are matched by their names"
        )
    skipped = [name for name in tasks if name not in common]
    for name in skipped:
        logger.warning("%s has no task %s; it is not scored", path.name, name)
    # a covariate that the model does not read need not be sound
    read = {"covariates": own.used_covariates}
    cohorts = tuple(section.model_copy(update=read) for section in other.cohorts)
    found = {"cohort": other.cohort.model_copy(update=read), "cohorts": cohorts}
    # how the other file would divide its cases does not matter here, and its column of parts may be absent
    split = other.split.model_copy(update={"column": None})
    return other.model_copy(update={**found, "tasks": common, "split": split}), skipped


def _overlap(runs: Sequence[RunFolder], checked: Checked) -> tuple[str, list[str]]:
    """In words and without ids, what both cohorts hold, empty for nothing; and the ids of the patients.

    Patients are compared by id, and images by their files and voxels, with the whole of the run's own cohort and with
    what the run that it started from had seen.
    """
    manifests = [run.load_manifest() for run in runs]
    earlier = [record for manifest in manifests for record in inherited(manifest)]
    known, cohort = [*map(whole_cohort, manifests), *earlier], checked.cohort
    taught = [*map(trained_on, manifests), *earlier]
    patients = sorted(
        {case.person for case in cohort.cases if any(record.has_patient(case, cohort) for record in known)}
    )
    images = sum(
        any(record.has_image(path, checked) for record in known)
        for case in cohort.cases
        for path in case.images.values()
    )
    counts = [(len(patients), "patient"), (images, "image")]
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count]
    if parts:
        place = "the run's own cohort" + (", or in what its init.run had seen" if earlier else "")
        learned = sum(any(record.has_case(case, checked) for record in taught) for case in cohort.cases)
        trained = f"{learned} of its {len(cohort.cases)} cases were trained on" if learned else "none was trained on"
        return f"{' and '.join(parts)} of it in {place}, and {trained}", patients
    return "", []
