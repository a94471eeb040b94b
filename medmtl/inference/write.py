"""Predictions as files: one mask per voxel task and case, one table per box task and case, one row per case."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from medmtl.data.cell import is_formula
from medmtl.data.formats.nifti import write_map, write_mask
from medmtl.errors import InputError
from medmtl.files import make_private_folder, safe_name, write_atomic
from medmtl.inference.case_prediction import CasePrediction
from medmtl.run_place import refuse_links, refuse_run
from medmtl.tasks.base import Cell, Result, Task
from medmtl.tasks.box_task import BoxResult, BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask

logger = logging.getLogger(__name__)

TABLE = "predictions.csv"
FIRST_COLUMN = b"case_id"  # of TABLE
ACTIVATIONS = "activations.json"  # of an evaluation: of the case tasks; with the masks its page can be written again
ANSWERS = {"masks": ".nii.gz", "maps": ".nii.gz", "boxes": ".csv"}  # folder of answers -> what their names end in
ENDS = [f"{axis}_{end}" for end in ("min", "max") for axis in "xyz"]
BOX_COLUMNS = ("score", *(f"{name}_mm" for name in ENDS), *(f"{name}_voxel" for name in ENDS))
WRITE_EVERY = 10.0  # seconds; a table of thousands of rows must not be written anew for each of them


def open_output(out: Path) -> None:
    """Make the folder for predictions, for the owner only, or take one that holds predictions.

    What is predicted again replaces its files, each as a whole, also where another model wrote them; the table, which
    names the model of each row, lists what was predicted last. Masks of other cases stay where they are.

    Raises:
        InputError: B042 if the folder holds an evaluation, another table of the name ``predictions.csv``, or ``masks``,
            ``maps`` or ``boxes`` that were not written here; B165 if one of these is a link, or ``out`` is a run, lies
            in one, or holds the folds of one.
    """
    refuse_run(out)
    refuse_links(out, answer_folders(out))
    if os.path.lexists(out / ACTIVATIONS):
        raise InputError(
            f"{out} holds {ACTIVATIONS}, and predictions would mix with this evaluation; choose another folder",
            code="B042",
        )
    for folder in ANSWERS:
        if (out / folder).exists() and not (out / TABLE).exists():
            raise InputError(
                f"{out} holds {folder}/ but no {TABLE}, so these are not predictions and may be somebody's drawings; "
                "choose another folder",
                code="B042",
            )
    if (out / TABLE).is_file() and not _is_predictions(out / TABLE):
        raise InputError(
            f"{out} holds a {TABLE} that medmtl did not write, since case_id is not its first column; choose another "
            "folder",
            code="B042",
        )
    make_private_folder(out)


def answer_folders(out: Path) -> list[Path]:
    """Where masks, maps and boxes lie in an output folder, and what is in there, such as the folders of tasks."""
    return [folder for name in ANSWERS for folder in (out / name, *(out / name).glob("*"))]


def answer_file(name: str, case_id: str, answer: Task | Result) -> str | None:
    """Path inside the output folder of the file that a case's answer is written to: ``masks/TASK/CASE.nii.gz``,
    ``maps/TASK/CASE.nii.gz`` or ``boxes/TASK/CASE.csv``; None where the table says it all.

    Args:
        name: of the task.
        case_id: of the case.
        answer: the answer itself, with its mask or map, or the task that gives such answers.
    """
    folder = _folder(answer)
    return None if folder is None else f"{folder}/{name}/{safe_name(case_id)}{ANSWERS[folder]}"


def _folder(answer: Task | Result) -> str | None:
    if isinstance(answer, BoxTask | BoxResult):
        return "boxes"
    if isinstance(answer, LabelTask) or (isinstance(answer, Result) and answer.mask is not None):
        return "masks"
    return "maps" if isinstance(answer, MapTask) or (isinstance(answer, Result) and answer.map is not None) else None


def write_answers(prediction: CasePrediction, out: Path) -> None:
    """Write the case's masks, maps and boxes, for the owner only, to what :func:`answer_file` says.

    Masks and maps are on the grid of the case's first image: same shape, same affine.
    """
    for name, result in prediction.items():
        file = answer_file(name, prediction.case_id, result)
        if file is None:
            continue
        path = out / file
        make_private_folder(path.parent)
        if isinstance(result, BoxResult):
            write_atomic(path, boxes_text(result).encode())
        elif result.mask is not None:
            write_mask(path, result.mask.array, result.mask.grid)
        elif result.map is not None:
            write_map(path, result.map.array, result.map.grid)


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
        file = answer_file(name, prediction.case_id, result)
        if file is not None:
            row[f"{name}_file"] = file
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

    def keep_others(self, case_id: str, model_sha256: str, *, replace: bool = True) -> None:
        """Take over the rows of the file that is there, but for that of one case.

        Args:
            case_id: of that case.
            model_sha256: of the model of all rows.
            replace: whether that case may have a row.

        Raises:
            InputError: if a row is of another model or must not be replaced, or the file is no table of predictions.
        """
        rows = self._listed()
        if any(row.get("model_sha256") != model_sha256 for row in rows):
            raise InputError(f"{self._path} lists predictions of another model; choose another folder, or remove it")
        others = _without(rows, [case_id])
        if len(others) < len(rows) and not replace:
            raise InputError(
                f"{self._path} already has a row for this file's name, which stands for an id where none is given; "
                "give case_id= to predict: an id of its own, or the same one to replace the row"
            )
        self._rows = [{key: Written(text) for key, text in row.items() if key} for row in others]

    def begin(self, cases: Collection[str] | None = None) -> None:
        """Call before files of a case are written: the first call leaves the header alone in the file, or kept rows.

        What was predicted before has no row from then on, because its files are replaced one by one; and files of a
        process that was killed lie beside a table, by which they are known as predictions.

        Args:
            cases: ids of all cases that are predicted; where others had a row, the first call warns of it.
        """
        if self._written is not None:
            return
        if not self._rows:
            lost = 0 if cases is None else self._count_others(cases)
            write_atomic(self._path, FIRST_COLUMN + b"\n")
            self._written = time.monotonic()
            if lost:
                logger.warning(
                    "%d earlier row%s of %s replaced; all cases can be given in one call, and then share the table",
                    lost,
                    "" if lost == 1 else "s",
                    f"{self._path} {'was' if lost == 1 else 'were'}",
                )
        self.write()

    def _count_others(self, cases: Collection[str]) -> int:
        try:
            return len(_without(self._listed(), cases))
        except InputError:
            return 0  # it is no table, and is written over

    def _listed(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        try:
            with self._path.open(encoding="utf-8", errors="replace", newline="") as file:
                return list(csv.DictReader(file, restkey="", restval=""))
        except csv.Error as error:
            raise InputError(f"{self._path} cannot be read as a table ({error}); choose another folder") from None

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


def _is_predictions(table: Path) -> bool:
    """Whether a file begins as every table of predictions; an empty one is nobody's loss."""
    with table.open("rb") as file:
        begin = file.read(len(FIRST_COLUMN))
    return begin in (b"", FIRST_COLUMN)


def _without(rows: Sequence[dict[str, str]], cases: Collection[str]) -> list[dict[str, str]]:
    """The rows of other cases than these."""
    own = {_bytes(_cell(case_id)).decode() for case_id in cases}
    return [row for row in rows if row.get("case_id") not in own]


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
    return f"'{text}" if is_formula(text) else text
