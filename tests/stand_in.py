"""A small generated cohort that fits a configuration whose data are not here."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medmtl.build import build_tasks
from medmtl.config import Config, load
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.classification import ClassificationOptions
from medmtl.tasks.multilabel import MultilabelOptions
from medmtl.tasks.ordinal import OrdinalOptions
from medmtl.tasks.regression import RegressionOptions
from medmtl.tasks.survival import SurvivalOptions
from medmtl.tasks.voxel import LabelTask, MapTask

SHAPE = (16, 20, 12)
CASES = 12


def write_stand_in(config: Path, folder: Path) -> Path:
    """Write images, labels and the table that a configuration names.

    Args:
        config: the file; its own table need not exist.
        folder: where to write.

    Returns:
        The table: 12 cases of 12 patients at two sites, every task labelled.
    """
    resolved = load(config)
    rng = np.random.default_rng(0)
    rows = [_row(resolved, number, folder, rng) for number in range(CASES)]
    table = folder / resolved.cohort.table.name
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def _row(config: Config, number: int, folder: Path, rng: np.random.Generator) -> dict[str, str]:
    cohort = config.cohort
    row = {cohort.case: f"case{number:02}", cohort.patient: f"person{number:02}"}
    row[cohort.case] = f"case{number:02}"  # the patient's column may be the same
    if cohort.site:
        row[cohort.site] = ("north", "south")[number % 2]
    row |= {
        name: ("a", "b")[number % 2] if kind == "category" else str(50 + number)
        for name, kind in cohort.covariates.items()
    }
    spacing = config.plan.spacing or (1.0, 1.0, 1.0)
    for column in cohort.columns.values():
        image = rng.normal(100.0, 20.0, SHAPE).astype(np.float32)
        row[column] = _write(image, spacing, folder / f"case{number:02}_{column}.nii.gz")
    for place, (name, task) in enumerate(build_tasks(config).items()):
        column = task.columns[0]
        if isinstance(task, MapTask):
            low, high = task.value_range or (0.0, 1.0)
            values = rng.uniform(low, high, SHAPE).astype(np.float32)
            row[column] = _write(values, spacing, folder / f"case{number:02}_{name}.nii.gz")
        elif isinstance(task, LabelTask):
            mask = _mask(sorted(task.legal_values() - {0}), number)
            row[column] = _write(mask, spacing, folder / f"case{number:02}_{name}.nii.gz")
        elif isinstance(task, BoxTask):
            row[column] = _write(_mask([1, 2], number), spacing, folder / f"case{number:02}_{name}.nii.gz")
        elif isinstance(task.options, SurvivalOptions):
            row[column] = str(round(task.options.horizon * (0.3 + 0.15 * number)))
            row[task.options.event] = str(int(number % 3 > 0))
        else:
            row |= {target: _cell(task, number, place + rank) for rank, target in enumerate(task.columns)}
    return row


def _mask(values: list[int], number: int) -> npt.NDArray[np.uint8]:
    """One block per value, of a size that differs between cases."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for place, value in enumerate(values):
        mask[3 : 8 + number % 4, 2 + 5 * place : 6 + 5 * place, 3:8] = value
    return mask


def _cell(task: Task, number: int, place: int) -> str:
    options = task.options
    classes: tuple[str, ...] = ()
    if isinstance(options, ClassificationOptions):
        classes = options.classes
    elif isinstance(options, OrdinalOptions):
        classes = options.grades
    elif isinstance(options, MultilabelOptions):
        classes = options.values
    if classes:
        # tasks change class in different rhythms, so that none repeats another or the site
        return classes[number // (place + 1) % len(classes)]
    assert isinstance(options, RegressionOptions), f"no stand-in is known for {task.kind}"
    low, high = options.range or (50.0, 250.0)
    return f"{low + (high - low) * (number + 1) / (CASES + 1):.2f}"


def _write(array: npt.NDArray[np.generic], spacing: tuple[float, float, float], path: Path) -> str:
    nib.Nifti1Image(array, np.diag([*spacing, 1.0])).to_filename(path)  # type: ignore[no-untyped-call]
    return path.name
