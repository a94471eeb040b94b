"""Masks that a trained model predicts in bfloat16 beside those in fp32: Dice between the two, case by case.

    python benchmarks/precision.py RUN --out FOLDER [--split val]

The run's cases of the split are evaluated twice, with ``inference.precision`` set in a copy of the run. Labels are
compared one by one, those of a case that neither mask holds left out. A table is printed, by task, and the primary
score of each task in both.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

import medmtl
from medmtl.data.formats import strict_yaml
from medmtl.metrics.overlap import dice
from medmtl.run_folder import RunFolder
from medmtl.tasks.voxel import LabelTask

PRECISIONS = ("fp32", "bf16")


def main() -> None:
    """Evaluate in both, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    given = parser.parse_args()
    scores = {name: evaluated(given.run, given.out, name, given.split) for name in PRECISIONS}
    print("| task | labels compared | mean Dice | least | equal masks |\n|---|---|---|---|---|")
    for name in [name for name, task in scores["fp32"].tasks.items() if isinstance(task, LabelTask)]:
        pairs = [[array_of(scores[one].folder, row[name]) for one in PRECISIONS] for row in rows_of(scores, name)]
        found = [value for pair in pairs for value in dice_of(*pair)]
        equal = sum(bool((one == other).all()) for one, other in pairs)
        print(f"| {name} | {len(found)} | {np.mean(found):.4f} | {min(found):.4f} | {equal} of {len(pairs)} |")
    for name in scores["fp32"].tasks:
        told = [scores[one].metrics["tasks"][name] for one in PRECISIONS]
        values = [task["metrics"][task["primary"]]["value"] for task in told]
        print(f"{name}, {told[0]['primary']}: {values[0]:.4f} in fp32, {values[1]:.4f} in bf16")


def evaluated(run: Path, out: Path, precision: str, split: str) -> Any:
    """The scores of a copy of the run that predicts so."""
    copy = out / precision
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation", "test_access.jsonl"))
    path = RunFolder.open(copy).config
    config = strict_yaml.parse(path.read_text(encoding="utf-8")).data
    config["cohort"]["table"] = str((run / config["cohort"]["table"]).resolve())
    config["inference"]["precision"] = precision
    path.write_text(strict_yaml.dump(config), encoding="utf-8")
    return medmtl.evaluate(copy, split=split, device="cpu")[split]


def rows_of(scores: dict[str, Any], task: str) -> list[dict[str, str]]:
    """The cases that have a mask of the task."""
    with (scores["fp32"].folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row[task]]


def array_of(folder: Path, name: str) -> npt.NDArray[Any]:
    """The mask in a file that ``cases.csv`` names."""
    return np.asarray(nib.Nifti1Image.from_filename(folder / name).dataobj)


def dice_of(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> list[float]:
    """Of each label that either holds."""
    labels = np.union1d(one, other)
    found = [dice(one == label, other == label) for label in labels[labels != 0]]
    return [value for value in found if value is not None]


if __name__ == "__main__":
    main()
