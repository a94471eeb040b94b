"""What a command writes must be none of what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from medmtl.checking.targets import layout
from medmtl.config import Config
from medmtl.data.cell import folded
from medmtl.data.finding import Findings
from medmtl.data.table import read_table
from medmtl.data.table_files import FileFault, TableFiles
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
    """The tables of an experiment, and the images and labels that cells of their rows name.

    Every cell below a name of a column of files counts, whatever else is wrong with the header or the row: a fault that
    the check is going to tell must hide no file from it.
    """
    for section in config.cohorts or (config.cohort,):
        yield section.table
        declared = layout(config, tasks, section)
        try:
            table = read_table(declared.table, declared.columns, Findings())
        except CohortError:
            continue  # it has no cells; the check says why
        files = TableFiles(declared.table.parent, declared.roots)
        wanted = {folded(column) for column in (*declared.channels.values(), *declared.file_columns)}
        places = [place for place, name in enumerate(table.names) if folded(name) in wanted]
        for _, cells in table.rows():
            for cell in (cells[place] for place in places if cells[place] not in declared.missing):
                with suppress(FileFault):  # an empty cell's too, which would be a folder
                    yield files.find(cell)[0]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
