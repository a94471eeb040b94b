"""Keys of ``training`` and of the tasks that must fit each other."""

from __future__ import annotations

from collections.abc import Mapping

from medmtl.errors import ConfigError
from medmtl.registry import nearest
from medmtl.sections import TrainingSection
from medmtl.tasks.base import Task
from medmtl.validation import Faults, Lines, line_of


def check_training(training: TrainingSection, built: Mapping[str, Task], lines: Lines, faults: Faults) -> None:
    """Every task that wants a draw of its own can have it, and every head with a rate of its own is a case head.

    Args:
        training: the block.
        built: the tasks, unfitted.
        lines: of the file.
        faults: gets every fault.
    """
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
            if name not in built:
                guess = nearest(name, built)
                message = f"{name!r} is no task of this file{f'; did you mean {guess!r}?' if guess else ''}"
                raise ConfigError(message, key=key, line=line, code="B141")
            if built[name].voxel:
                message = (
                    f"{name!r} is a {built[name].kind}, whose head is trained with the trunk; set training.lr, or "
                    "leave it away"
                )
                raise ConfigError(message, key=key, line=line, code="B142")
