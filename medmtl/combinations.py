"""Keys that must fit each other: of the tasks, the cohort, ``training``, ``sharing`` and ``weighting``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medmtl import cohort_list, sharing, tasks, weighting
from medmtl.errors import ConfigError
from medmtl.registry import nearest
from medmtl.sections import CohortSection, TrainingSection
from medmtl.tasks.base import Task
from medmtl.validation import Faults, Lines, Place, line_of

if TYPE_CHECKING:
    from medmtl.config import Config


# columns of the result tables that are no task's
RESERVED = ("calibrated", "case_id", "model_sha256", "outside_training", "patient", "site")


def check_combinations(config: Config, lines: Lines, faults: Faults) -> None:
    """The blocks of a configuration fit each other.

    Args:
        config: each block of which is valid alone.
        lines: of the file.
        faults: gets every fault.
    """
    built = {name: tasks.kinds.get(options.kind)(name, options) for name, options in config.tasks.items()}
    _check_columns(config, built, lines, faults)
    _check_result_columns(built, lines, faults)
    _check_inputs(config, built, lines, faults)
    _check_training(config.training, built, lines, faults)
    _check_times(config, lines, faults)
    for name, task in built.items():
        with faults.kept():
            try:
                task.resolve(built)
            except ValueError as error:
                text, prefix = str(error), f"tasks.{name}"
                key, _, message = text.partition(": ") if text.startswith(prefix) else (prefix, "", text)
                line = line_of(("tasks", *key.split(".")[1:]), lines)
                raise ConfigError(message, key=key, line=line, code="B141") from None
    _check_sharing(config, built, lines, faults)
    _check_sharing_is_measured(config, lines, faults)
    _check_head_gradient(config, built, lines, faults)
    _check_weighting(config, built, lines, faults)


def _check_sharing(config: Config, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    with faults.kept():
        try:
            sharing.kinds.get(config.sharing.kind).check(config.sharing, list(built))
        except ValueError as error:
            key, _, message = str(error).partition(": ")
            place = ("sharing", *key.split("."))
            raise ConfigError(message, key=".".join(place), line=line_of(place, lines), code="B141") from None


def _check_sharing_is_measured(config: Config, lines: Lines, faults: Faults) -> None:
    place = ("training", "telemetry")
    with faults.kept():
        if config.training.telemetry and not sharing.kinds.get(config.sharing.kind).shares:
            message = (
                f"it measures gradients on shared parameters, and sharing.kind {config.sharing.kind!r} has none; "
                "set it to 0, or choose another sharing"
            )
            raise ConfigError(message, key=".".join(place), line=line_of(place, lines), code="B142")


def _check_head_gradient(config: Config, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    """No encoder that case tasks alone reach is left without a gradient."""
    cases = [name for name, task in built.items() if task.reads_image and not task.voxel]
    shares = sharing.kinds.get(config.sharing.kind).shares
    if config.training.head_gradient > 0 or not cases or (shares and config.views.share):
        return
    place = ("training", "head_gradient")
    with faults.kept():
        other = "views.share false" if shares else f"sharing.kind {config.sharing.kind!r}"
        message = (
            f"with 0 no case head teaches an encoder, and {other} gives {cases[0]!r} one that no voxel task teaches; "
            "raise it, or let it share the voxel tasks' one"
        )
        raise ConfigError(message, key=".".join(place), line=line_of(place, lines), code="B142")


def _check_weighting(config: Config, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    method = weighting.kinds.get(config.weighting.kind)
    line = line_of(("weighting",), lines)
    for name, task in built.items():
        with faults.kept():
            if method.positive_losses and not task.positive_loss:
                raise ConfigError(
                    f"weighting.kind {method.kind!r} needs positive losses, and tasks.{name} ({task.kind}) has one "
                    "that is not; choose another of the two",
                    line=line,
                    code="B142",
                )
    if method.needs == "gradients":
        _check_gradients(config, method.kind, lines, faults)
    with faults.kept():
        try:
            method(config.weighting, list(built))
        except ValueError as error:
            raise ConfigError(str(error), key="weighting", line=line, code="B138") from None


def _check_gradients(config: Config, kind: str, lines: Lines, faults: Faults) -> None:
    """What a weighting on gradients asks of the rest: shared parameters, and gradients without a scaler."""
    with faults.kept():
        if not sharing.kinds.get(config.sharing.kind).shares:
            raise ConfigError(
                f"weighting.kind {kind!r} balances the gradients of shared parameters, and sharing.kind "
                f"{config.sharing.kind!r} has none; choose another of the two",
                line=line_of(("weighting",), lines),
                code="B142",
            )
    with faults.kept():
        if config.plan.precision == "fp16":
            raise ConfigError(
                f"weighting.kind {kind!r} works on gradients, which plan.precision fp16 needs a scaler for; set "
                "plan.precision to bf16 or fp32, or leave it to the planner",
                line=line_of(("plan", "precision"), lines),
                code="B142",
            )


def _check_columns(config: Config, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    for number, section in enumerate(config.cohorts):
        _check_section(config, section, (cohort_list.KEY, number), built, lines, faults)
    if not config.cohorts:
        _check_section(config, config.cohort, ("cohort",), built, lines, faults)


def _check_section(
    config: Config, section: CohortSection, above: Place, built: Mapping[str, Task], lines: Lines, faults: Faults
) -> None:
    where = ".".join(map(str, above))
    channel_of: dict[str, str] = {}
    for channel, column in section.columns.items():
        with faults.kept():
            if column in channel_of:
                place = (*above, "channels", channel)
                message = f"the channels {channel_of[column]!r} and {channel!r} are one column, {column!r}"
                key = f"{where}.channels.{channel}"
                raise ConfigError(message, key=key, line=line_of(place, lines), code="B142")
            channel_of[column] = channel
    for name, task in built.items():
        with faults.kept():
            inputs = [column for column in task.columns if column in channel_of]
            if inputs:
                column, line = inputs[0], line_of(("tasks", name), lines)
                message = f"its column {column!r} is also the channel {channel_of[column]!r}; a target is no input"
                raise ConfigError(message, key=f"tasks.{name}", line=line, code="B129")
    taken = {column: f"the channel {channel!r}" for column, channel in channel_of.items()}
    taken |= {section.case: f"{where}.case", section.patient: f"{where}.patient"}
    taken |= {column: f"tasks.{name}" for name, task in built.items() for column in task.columns}
    if config.split.column is not None:
        taken[config.split.column] = "split.column"
    for name in section.covariates:
        with faults.kept():
            if name in taken:
                place = (*above, "covariates", name)
                message = (
                    f"the column {name!r} is also that of {taken[name]}, and no clinical input; name it in one place"
                )
                key = f"{where}.covariates.{name}"
                raise ConfigError(message, key=key, line=line_of(place, lines), code="B129")


def _check_result_columns(built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    """No column of the result tables stands for two things, of which the later would overwrite the earlier."""
    owners = dict.fromkeys(RESERVED, "")
    for name, task in built.items():
        for column in task.result_columns:
            with faults.kept():
                if column in owners:
                    other = owners[column]
                    message = f"{column!r} is a column of the result tables; give the task another name"
                    if other:
                        message = (
                            f"the result tables would have the column {column!r} twice, of tasks.{other} and of "
                            f"tasks.{name}; rename one of the two"
                        )
                    raise ConfigError(message, key=f"tasks.{name}", line=line_of(("tasks", name), lines), code="B141")
                owners[column] = name


def _check_inputs(config: Config, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    """What the tasks read is there, and one of them reads the image."""
    for name, task in built.items():
        place = ("tasks", name, "inputs")
        key, line = ".".join(place), line_of(place, lines)
        with faults.kept():
            if task.voxel and task.reads_covariates:
                message = f"{task.options.inputs!r} is for case tasks; a {task.kind} reads the image"
                raise ConfigError(message, key=key, line=line, code="B142")
            if task.reads_covariates and not config.cohort.covariates:
                message = f"{task.options.inputs!r} wants cohort.covariates, which declares none"
                raise ConfigError(message, key=key, line=line, code="B142")
    with faults.kept():
        where = ("inference", "tta")
        if config.inference.tta != "none" and config.augmentation.flips == "none":
            message = (
                "mirror images are looked at along the axes of augmentation.flips, which declares none; name the axes "
                "along which one is a plausible patient, or set this to none"
            )
            raise ConfigError(message, key=".".join(where), line=line_of(where, lines), code="B142")
    with faults.kept():
        if not any(task.reads_image for task in built.values()):
            message = (
                "every task has inputs: covariates, and none reads the image; give one of them inputs: both or image"
            )
            raise ConfigError(message, key="tasks", line=line_of(("tasks",), lines), code="B142")


def _check_training(training: TrainingSection, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    """Every task that wants a draw of its own can have it, and every head with a rate of its own is a case head."""
    for name, task in built.items():
        place = ("tasks", name, task.sampling_option)
        with faults.kept():
            if training.sampling != "labelled" and task.sampling_groups({}) is not None:
                message = (
                    f"it decides which cases are drawn, and training.sampling is {training.sampling!r}, which draws "
                    "all alike; set training.sampling: labelled, or this to none"
                )
                raise ConfigError(message, key=".".join(place), line=line_of(place, lines), code="B142")
    for name in training.heads:
        place = ("training", "heads", name)
        key, line = ".".join(place), line_of(place, lines)
        with faults.kept():
            _expect_task(name, built, place, lines)
            if built[name].voxel:
                message = (
                    f"{name!r} is a {built[name].kind}, whose head is trained with the trunk; set training.lr, or "
                    "leave it away"
                )
                raise ConfigError(message, key=key, line=line, code="B142")


def _check_times(config: Config, lines: Lines, faults: Faults) -> None:
    """Every task has a step that trains it, every step a task, and a method on gradients more than one."""
    training, place = config.training, ("training", "tasks")
    for name, times in training.tasks.items():
        own = (*place, name)
        with faults.kept():
            _expect_task(name, config.tasks, own, lines)
            first, end = times.span(training.steps) if training.steps is not None else (0, 1)
            if first == end:
                message = (
                    f"{name!r} would train in none of the {training.steps} steps of training.steps, from "
                    f"{times.start:g} to {times.stop:g} of them; take them further apart"
                )
                raise ConfigError(message, key=".".join(own), line=line_of(own, lines), code="B142")
    with faults.kept():
        gap = _gap(config)
        if gap is not None:
            raise ConfigError(gap, key=".".join(place), line=line_of(place, lines), code="B142")
    method = weighting.kinds.get(config.weighting.kind)
    with faults.kept():
        if training.alternate != "none" and method.needs == "gradients":
            message = (
                f"with {training.alternate!r} a step has one task, and weighting.kind {config.weighting.kind!r} "
                "balances the gradients of several; set it to none, or choose a weighting on losses"
            )
            where = ("training", "alternate")
            raise ConfigError(message, key=".".join(where), line=line_of(where, lines), code="B142")


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


def _expect_task(name: str, known: Mapping[str, object], place: Place, lines: Lines) -> None:
    if name not in known:
        guess = nearest(name, known)
        message = f"{name!r} is no task of this file{f'; did you mean {guess!r}?' if guess else ''}"
        raise ConfigError(message, key=".".join(map(str, place)), line=line_of(place, lines), code="B141")
