"""A cohort of four tiny scans in which a test breaks one thing after the other."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import check_cohort
from medmtl.data.finding import Finding
from tests.data.formats.nifti_files import AFFINE, LABELS, VOXELS, Hostile, content_of, saved

SIZE = "  size: {kind: regression, column: size}\n"
ORGAN = "  organ: {kind: segmentation, column: organ, labels: {one: 1, two: 2, three: 3}}\n"


def scan(index: int) -> npt.NDArray[Any]:
    """Voxels of a case; those of no case are ``VOXELS`` themselves, which stand beside the masks of the corpus."""
    return np.roll(VOXELS, index + 1, 2)


def mask(index: int, highest: int = 3, otherwise: int = 0) -> npt.NDArray[Any]:
    """Labels 0 to 3 of a case; those above ``highest`` replaced."""
    labels = np.roll(LABELS, index + 1, 2)
    return np.where(labels > highest, otherwise, labels).astype(np.uint8)


class Scans:
    """Four cases of one channel; ``size`` is always labelled, ``organ`` only where a test wants masks.

    ``plan`` holds further lines of that section. Intensities are by z-score, as the voxels look like Hounsfield units.
    """

    def __init__(self, folder: Path, *, masks: bool = False) -> None:
        self.folder = folder
        self.masks = masks
        self.organ = ORGAN
        self.plan = "  normalisation: {t1: zscore}\n"
        self.rows: list[dict[str, str]] = []
        for index in range(4):
            row = {"id": f"case{index}", "person": f"p{index}", "t1": f"t1_{index}.nii.gz", "size": str(index)}
            self.image(index, scan(index))
            if masks:
                self.mask(index, mask(index))
                row["organ"] = f"organ_{index}.nii.gz"
            self.rows.append(row)

    def image(self, index: int, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AFFINE) -> None:
        saved(self.folder, content_of(array, affine), f"t1_{index}.nii.gz")

    def mask(self, index: int, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AFFINE) -> None:
        saved(self.folder, content_of(array, affine), f"organ_{index}.nii.gz")

    def plant(self, bad: Hostile, index: int = 1) -> str:
        """Put a file of the corpus in the place of a case's image or mask; returns its name in the table."""
        column = "organ" if bad.label else "t1"
        file = Path(bad.id, bad.file)
        (self.folder / bad.id).mkdir()
        (self.folder / file).write_bytes(bad.content)
        if bad.label:
            self.image(index, VOXELS)
        self.rows[index][column] = str(file)
        return str(file)

    def write(self) -> Path:
        """The table and the configuration; returns the latter."""
        with (self.folder / "cohort.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        config = self.folder / "config.yaml"
        config.write_text(
            "schema: 1\ncohort: {table: cohort.csv, case: id, patient: person, channels: {t1: t1}}\n"
            f"tasks:\n{SIZE}{self.organ if self.masks else ''}plan:\n{self.plan}"
            "split: {folds: 2}\ntraining: {steps: 1}\n"
        )
        return config

    def findings(self) -> list[Finding]:
        config = configuration.load(self.write())
        return list(check_cohort(config, build_tasks(config)).findings)

    def only(self) -> Finding:
        (finding,) = self.findings()
        return finding

    def hashes(self) -> dict[str, str]:
        """Of every file of the cohort."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
