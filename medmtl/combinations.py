"""Keys that must fit each other: of the tasks, the cohort, ``training``, ``sharing`` and ``weighting``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medmtl import cohort_list, sharing, tasks, weighting
from medmtl.sections import CohortSection, TrainingSection
from medmtl.sharing.hard import HardOptions
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import Task
from medmtl.validation import Faults, Place

if TYPE_CHECKING:
    from medmtl.config import Config


# columns of the result tables that are no task's
RESERVED = ("calibrated", "case_id", "fold", "model_sha256", "outside_training", "patient", "site")


def check_combinations(config: Config, faults: Faults) -> None:
    """The blocks of a configuration fit each other.

    Args:
        config: each block of which is valid alone.
        faults: gets every fault.
    """
    built = {name: tasks.kinds.get(options.kind)(name, options) for name, options in config.tasks.items()}
    _check_columns(config, built, faults)
    _check_result_columns(built, faults)
    _check_inputs(config, built, faults)
    _check_training(config.training, built, faults)
    _check_times(config, faults)
    for name, task in built.items():
        try:
            task.resolve(built)
        except ValueError as error:
            text, prefix = str(error), f"tasks.{name}"
            key, _, message = text.partition(": ") if text.startswith(prefix) else (prefix, "", text)
            faults.add(tuple(key.split(".")), message, "B141")
    _check_sharing(config, built, faults)
    _check_head_gradient(config, built, faults)
    _check_weighting(config, built, faults)


def _check_sharing(config: Config, built: Mapping[str, Task], faults: Faults) -> None:
    kind = sharing.kinds.get(config.sharing.kind)
    try:
        kind.check(config.sharing, list(built))
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        faults.add(("sharing", *key.split(".")), message, "B141")
    if config.training.telemetry and not kind.shares:
        message = (
            f"it measures gradients on shared parameters, and sharing.kind {config.sharing.kind!r} has none; "
            "set it to 0, or choose another sharing"
        )
        faults.add(("training", "telemetry"), message, "B142")


def _check_head_gradient(config: Config, built: Mapping[str, Task], faults: Faults) -> None:
    """Nothing that case tasks alone reach before their heads is left without a gradient."""
    cases = [name for name, task in built.items() if task.reads_image and not task.voxel]
    if config.training.head_gradient > 0 or not cases:
        return
    if not isinstance(config.sharing, HardOptions) or _apart(config.sharing, built):
        why = f"sharing.kind {config.sharing.kind!r} gives {cases[0]!r} parts that no voxel task does"
        fix = "raise it, or set sharing: {kind: hard} with a voxel task in each group"
    elif not config.views.share:
        why = f"views.share false gives {cases[0]!r} an encoder that no voxel task does"
        fix = "raise it, or let it share the voxel tasks' one"
    elif config.init is None and not any(task.voxel for task in built.values()):
        why, fix = "no other task does", "raise it, or start from a trained run by init.run"
    else:
        return
    faults.add(("training", "head_gradient"), f"with 0 no case head teaches the network, and {why}; {fix}", "B142")


def _apart(options: HardOptions, built: Mapping[str, Task]) -> bool:
    """Whether case tasks alone have a copy of the deeper stages."""
    if options.shared_stages is None:
        return False
    groups = (options.groups or {}).values()
    branches = [*groups, *((name,) for name in built if not any(name in group for group in groups))]
    seeing = [[built[name] for name in branch if name in built and built[name].reads_image] for branch in branches]
    return not all(any(task.voxel for task in branch) for branch in seeing if branch)


def _check_weighting(config: Config, built: Mapping[str, Task], faults: Faults) -> None:
    method, place = weighting.kinds.get(config.weighting.kind), ("weighting",)
    for name, task in built.items():
        if method.positive_losses and not task.positive_loss:
            message = (
                f"weighting.kind {method.kind!r} needs positive losses, and tasks.{name} ({task.kind}) has one "
                "that is not; choose another of the two"
            )
            faults.add((), message, "B142", at=place)
    if method.needs == "gradients":
        _check_gradients(config, method.kind, faults)
    try:
        method(config.weighting, list(built))
    except ValueError as error:
        faults.add(place, str(error), "B138")


def _check_gradients(config: Config, kind: str, faults: Faults) -> None:
    """What a weighting on gradients asks of the rest: shared parameters, and gradients without a scaler."""
    if not sharing.kinds.get(config.sharing.kind).shares:
        message = (
            f"weighting.kind {kind!r} balances the gradients of shared parameters, and sharing.kind "
            f"{config.sharing.kind!r} has none; choose another of the two"
        )
        faults.add((), message, "B142", at=("weighting",))
    if config.plan.precision == "fp16":
        message = (
            f"weighting.kind {kind!r} works on gradients, which plan.precision fp16 needs a scaler for; set "
            "plan.precision to bf16 or fp32, or leave it to the planner"
        )
        faults.add((), message, "B142", at=("plan", "precision"))


def _check_columns(config: Config, built: Mapping[str, Task], faults: Faults) -> None:
    for number, section in enumerate(config.cohorts):
        _check_section(config, section, (cohort_list.KEY, number), built, faults)
    if not config.cohorts:
        _check_section(config, config.cohort, ("cohort",), built, faults)


def _check_section(
    config: Config, section: CohortSection, above: Place, built: Mapping[str, Task], faults: Faults
) -> None:
    where = ".".join(map(str, above))
    channel_of: dict[str, str] = {}
    for channel, column in section.columns.items():
        first = channel_of.setdefault(column, channel)
        if first != channel:
            message = f"the channels {first!r} and {channel!r} are one column, {column!r}"
            faults.add((*above, "channels", channel), message, "B142")
    for name, task in built.items():
        inputs = [column for column in task.columns if column in channel_of]
        if inputs:
            message = f"its column {inputs[0]!r} is also the channel {channel_of[inputs[0]]!r}; a target is no input"
            faults.add(("tasks", name), message, "B129")
    taken = {column: f"the channel {channel!r}" for column, channel in channel_of.items()}
    taken |= {section.case: f"{where}.case", section.patient: f"{where}.patient"}
    taken |= {column: f"tasks.{name}" for name, task in built.items() for column in task.columns}
    if config.split.column is not None:
        taken[config.split.column] = "split.column"
    for name in section.covariates:
        if name in taken:
            message = f"the column {name!r} is also that of {taken[name]}, and no clinical input; name it in one place"
            faults.add((*above, "covariates", name), message, "B129")


def _check_result_columns(built: Mapping[str, Task], faults: Faults) -> None:
    """No column of the result tables stands for two things, of which the later would overwrite the earlier."""
    owners = dict.fromkeys(RESERVED, "")
    for name, task in built.items():
        for column in task.result_columns:
            if column not in owners:
                owners[column] = name
                continue
            message = f"{column!r} is a column of the result tables; give the task another name"
            if owners[column] == name:
                message = (
                    f"the result tables would have the column {column!r} twice, both of this task; rename one of its "
                    "findings, classes or labels"
                )
            elif owners[column]:
                message = (
                    f"the result tables would have the column {column!r} twice, of tasks.{owners[column]} and of "
                    f"tasks.{name}; rename one of the two"
                )
            faults.add(("tasks", name), message, "B141")


def _check_inputs(config: Config, built: Mapping[str, Task], faults: Faults) -> None:
    """What the tasks read is there, and one of them reads the image."""
    for name, task in built.items():
        if task.voxel and task.reads_covariates:
            message = f"{task.options.inputs!r} is for case tasks; a {task.kind} reads the image"
            faults.add(("tasks", name, "inputs"), message, "B142")
        elif task.reads_covariates and not config.cohort.covariates:
            message = f"{task.options.inputs!r} wants cohort.covariates, which declares none"
            faults.add(("tasks", name, "inputs"), message, "B142")
    if config.inference.tta != "none" and config.augmentation.flips == "none":
        message = (
            "mirror images are looked at along the axes of augmentation.flips, which declares none; name the axes "
            "along which one is a plausible patient, or set this to none"
        )
        faults.add(("inference", "tta"), message, "B142")
    if not any(task.reads_image for task in built.values()):
        message = "every task has inputs: covariates, and none reads the image; give one of them inputs: both or image"
        faults.add(("tasks",), message, "B142")


def _check_training(training: TrainingSection, built: Mapping[str, Task], faults: Faults) -> None:
    """Every task that wants a draw of its own can have it, and every head with a rate of its own is a case head."""
    for name, task in built.items():
        if training.sampling != "labelled" and task.sampling_groups({}) is not None:
            message = (
                f"it decides which cases are drawn, and training.sampling is {training.sampling!r}, which draws "
                "all alike; set training.sampling: labelled, or this to none"
            )
            faults.add(("tasks", name, task.sampling_option), message, "B142")
    for name in training.heads:
        place = ("training", "heads", name)
        if _is_task(name, built, place, faults) and built[name].voxel:
            message = (
                f"{name!r} is a {built[name].kind}, whose head is trained with the trunk; set training.lr, or "
                "leave it away"
            )
            faults.add(place, message, "B142")


def _check_times(config: Config, faults: Faults) -> None:
    """Every task has a step that trains it, every step a task, and a method that compares tasks more than one."""
    training, place = config.training, ("training", "tasks")
    for name, times in training.tasks.items():
        first, end = times.span(training.steps) if training.steps is not None else (0, 1)
        if _is_task(name, config.tasks, (*place, name), faults) and first == end:
            message = (
                f"{name!r} would train in none of the {training.steps} steps of training.steps, from "
                f"{times.start:g} to {times.stop:g} of them; take them further apart"
            )
            faults.add((*place, name), message, "B142")
    gap = _gap(config)
    if gap is not None:
        faults.add(place, gap, "B142")
    method = weighting.kinds.get(config.weighting.kind)
    if training.alternate != "none" and (method.needs == "gradients" or not method.weighs_alone):
        what = "balances the gradients of several" if method.needs == "gradients" else "gives one alone the weight 1"
        message = (
            f"with {training.alternate!r} a step has one task, and weighting.kind {config.weighting.kind!r} {what}; "
            "set it to none, or choose another weighting, such as uncertainty or fixed"
        )
        faults.add(("training", "alternate"), message, "B142")


def _gap(config: Config) -> str | None:
    """When no task would train, as a sentence."""
    times = config.training.tasks
    if not set(config.tasks) <= set(times):
        return None
    if config.training.minutes is not None and not any(one.at_once for one in times.values()):
        return (
            "every task starts later or has a ramp, and with training.minutes nothing trains until the length is "
            "known; leave one task without start and ramp, or set training.steps"
        )
    covered = 0.0
    for one in sorted(times.values(), key=lambda one: one.start):
        if one.start > covered:
            return (
                f"no task trains from {covered:g} to {one.start:g} of the training; let one stop later or start earlier"
            )
        covered = max(covered, one.stop)
    if covered < 1:
        return f"no task trains from {covered:g} to 1 of the training; let one stop later"
    return None


def _is_task(name: str, known: Mapping[str, object], place: Place, faults: Faults) -> bool:
    if name not in known:
        faults.add(place, f"{name!r} is no task of this file{did_you_mean(name, known, '; ')}", "B141")
    return name in known
