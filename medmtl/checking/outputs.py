"""What a command writes must be none of what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from medmtl.checking.targets import layout
from medmtl.config import Config
from medmtl.data.cohort import read_cohort
from medmtl.data.finding import Findings
from medmtl.errors import CohortError, InputError
from medmtl.tasks.base import Task


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse an output that is an input, also where links give one file two names.

    Args:
        outputs: files that would be written; those that do not exist yet cannot be inputs.
        inputs: files that are read; looked at only if an output exists.

    Raises:
        InputError: naming both.
    """
    existing = {identity: path for path in outputs if (identity := _identity(path)) is not None}
    for path in inputs if existing else ():
        output = existing.get(_identity(path) or (-1, -1))
        if output is not None:
            raise InputError(
                f"{output} would be overwritten and is the input {path.name}; write somewhere else", code="B048"
            )


def cohort_files(config: Config, tasks: Mapping[str, Task]) -> Iterator[Path]:
    """The tables of an experiment, and the images and labels that their readable rows name."""
    for section in config.cohorts or (config.cohort,):
        yield section.table
        declared = layout(config, tasks, section)
        # not every command needs every column, and one that is absent hides no file that another one names
        lenient = replace(declared, patient=declared.case, may_lack=frozenset(declared.columns))
        try:
            cohort = read_cohort(lenient, Findings())
        except CohortError:
            continue  # the check says what is wrong with it
        for case in cohort.identified:
            yield from case.images.values()
            yield from case.files.values()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
