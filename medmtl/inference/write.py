"""Predictions as files: one mask per voxel task and case, one table per box task and case, one row per case."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path

from medmtl.data.formats.nifti import write_map, write_mask
from medmtl.errors import InputError
from medmtl.files import make_private_folder, safe_name, write_atomic
from medmtl.inference.case_prediction import CasePrediction
from medmtl.run_place import refuse_run
from medmtl.tasks.base import Cell, Task
from medmtl.tasks.box_task import BoxResult
from medmtl.tasks.voxel import LabelTask, MapTask

TABLE = "predictions.csv"
ENDS = [f"{axis}_{end}" for end in ("min", "max") for axis in "xyz"]
BOX_COLUMNS = ("score", *(f"{name}_mm" for name in ENDS), *(f"{name}_voxel" for name in ENDS))
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
WRITE_EVERY = 10.0  # seconds; a table of thousands of rows must not be written anew for each of them


def open_output(out: Path) -> None:
    """Make the folder for predictions, for the owner only, or take one that holds predictions.

    What is predicted again replaces its files, each as a whole, also where another model wrote them; the table, which
    names the model of each row, lists what was predicted last. Masks of other cases stay where they are.

    Raises:
        InputError: B042 if the folder has ``masks``, ``maps`` or ``boxes`` that were not written here, B165 if it is a
            run or holds the folds of one.
    """
    refuse_run(out)
    for folder in ("masks", "maps", "boxes"):
        if (out / folder).exists() and not (out / TABLE).exists():
            raise InputError(
                f"{out} holds {folder}/ but no {TABLE}, so these are not predictions and may be somebody's drawings; "
                "choose another folder",
                code="B042",
            )
    make_private_folder(out)


def mask_file(task: str, case_id: str) -> str:
    """Path of a mask inside the output folder."""
    return f"masks/{task}/{safe_name(case_id)}.nii.gz"


def map_file(task: str, case_id: str) -> str:
    """Path of a map inside the output folder."""
    return f"maps/{task}/{safe_name(case_id)}.nii.gz"


def box_file(task: str, case_id: str) -> str:
    """Path of a table of boxes inside the output folder."""
    return f"boxes/{task}/{safe_name(case_id)}.csv"


def volume_files(task: Task, case_id: str) -> tuple[str, ...]:
    """Paths inside the output folder of the volumes that a task's answer is written to; none for any other task."""
    if isinstance(task, LabelTask):
        return (mask_file(task.name, case_id),)
    return (map_file(task.name, case_id),) if isinstance(task, MapTask) else ()


def write_masks(prediction: CasePrediction, out: Path) -> None:
    """Write the case's masks, maps and boxes, for the owner only: ``out/masks/TASK/CASE.nii.gz``, ``out/maps/...``,
    ``out/boxes/TASK/CASE.csv``.

    Masks and maps are on the grid of the case's first image: same shape, same affine.
    """
    for name, result in prediction.items():
        if result.map is not None:
            path = out / map_file(name, prediction.case_id)
            make_private_folder(path.parent)
            write_map(path, result.map.array, result.map.grid)
        if result.mask is not None:
            path = out / mask_file(name, prediction.case_id)
            make_private_folder(path.parent)
            write_mask(path, result.mask.array, result.mask.grid)
        if isinstance(result, BoxResult):
            path = out / box_file(name, prediction.case_id)
            make_private_folder(path.parent)
            write_atomic(path, boxes_text(result).encode())


def boxes_text(result: BoxResult) -> str:
    """Boxes as CSV, the highest score first: the score, corners in mm of the scanner's frame (RAS+), and corners in
    voxels along the axes of the array in the file of the case's first image; see :class:`FoundBox`.
    """
    rows = [(box.score, *box.mm, *box.voxels) for box in result.boxes]
    return "".join(",".join(line) + "\n" for line in (BOX_COLUMNS, *(map(_cell, row) for row in rows)))


def prediction_row(prediction: CasePrediction, model_sha256: str) -> dict[str, Cell]:
    """One row of ``predictions.csv``."""
    row: dict[str, Cell] = {"case_id": prediction.case_id}
    for name, result in prediction.items():
        if result.mask is not None:
            row[f"{name}_file"] = mask_file(name, prediction.case_id)
        if result.map is not None:
            row[f"{name}_file"] = map_file(name, prediction.case_id)
        if isinstance(result, BoxResult):
            row[f"{name}_file"] = box_file(name, prediction.case_id)
        row.update(result.cells(name))
    row["outside_training"] = " ".join(prediction.outside_training)
    # thresholds and calibrators come from out-of-fold predictions, which a single fold does not have
    row["calibrated"] = "no"
    row["model_sha256"] = model_sha256
    return row


def csv_text(rows: Sequence[dict[str, Cell]]) -> str:
    """Rows as CSV; text that a spreadsheet would take for a formula is quoted by a leading apostrophe."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def write_table(rows: Sequence[dict[str, Cell]], path: Path) -> None:
    """Write rows as a private CSV file, whole or not at all; bytes of a name that are no UTF-8 are written escaped."""
    write_atomic(path, _bytes(csv_text(rows)))


class Written(str):
    """Text of a cell as it stands in a table that was written here; it is written again unchanged."""


class PredictionTable:
    """``predictions.csv`` while it grows: whenever the process ends, it lists no case whose files are not whole.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Cell]] = []
        self._written: float | None = None

    def keep_others(self, case_id: str, model_sha256: str) -> None:
        """Take over the rows of the file that is there, but for that of one case.

        Raises:
            InputError: if a row is of another model, or the file is no table of predictions.
        """
        if not self._path.exists():
            return
        try:
            with self._path.open(encoding="utf-8", errors="replace", newline="") as file:
                rows = list(csv.DictReader(file, restkey="", restval=""))
        except csv.Error as error:
            raise InputError(f"{self._path} cannot be read as a table ({error}); choose another folder") from None
        if any(row.get("model_sha256") != model_sha256 for row in rows):
            raise InputError(f"{self._path} lists predictions of another model; choose another folder, or remove it")
        own = _bytes(_cell(case_id)).decode()
        others = [row for row in rows if row.get("case_id") != own]
        self._rows = [{key: Written(text) for key, text in row.items() if key} for row in others]

    def begin(self) -> None:
        """Call before files of a case are written: the first call leaves the header alone in the file, or kept rows.

        What was predicted before has no row from then on, because its files are replaced one by one; and files of a
        process that was killed lie beside a table, by which they are known as predictions.
        """
        if self._written is not None:
            return
        if not self._rows:
            write_atomic(self._path, b"case_id\n")
            self._written = time.monotonic()
        self.write()

    def add(self, row: dict[str, Cell]) -> None:
        """Add the row of a case whose files are written; the file is brought up to date every ten seconds at most."""
        self._rows.append(row)
        if self._written is None or time.monotonic() - self._written >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Bring the file up to date; without any row it stays as it is."""
        if self._rows:
            write_table(self._rows, self._path)
            self._written = time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Whether no row was added."""
        return not self._rows


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _quoted(text: str) -> str:
    # not the csv module's writer, which leaves a lone carriage return bare where lines end in a line feed
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if isinstance(value, int):  # exact, and never a formula
        return text
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
