"""A cohort on disk in which a test breaks one thing after the other."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import Checked, check_cohort, check_headers
from medmtl.config import Config
from medmtl.data.finding import Finding

CONFIG = """\
schema: 1
cohort:
  table: cohort.csv
  case: id
  patient: person
  channels: {t1: t1, t2: t2}
tasks:
  organ: {kind: segmentation, column: organ, labels: {rim: 1, core: 2}}
  grade: {kind: classification, column: grade, classes: [low, high]}
  size:  {kind: regression, column: size, range: [0, 100]}
split: {folds: 2}
training: {steps: 1}
"""
SHAPE = (6, 7, 8)
CASES = 8

Array = npt.NDArray[Any]


def save(path: Path, array: Array, shift: float = 0.0) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = shift
    image = nib.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
    image.set_qform(affine, code=1)  # type: ignore[no-untyped-call]
    image.set_sform(affine, code=1)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    path.write_bytes(gzip.compress(image.to_bytes(), 1))


def scan(seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def mask(*values: int, place: int = 2) -> Array:
    """Values in a row of voxels; those of other places lie elsewhere, so that no two cases have one mask."""
    array = np.zeros(SHAPE, np.uint8)
    array[place % SHAPE[0], 2 + place // SHAPE[0], : len(values)] = values
    return array


class Folder:
    """A cohort of eight cases in which a test breaks one thing after the other."""

    def __init__(self, path: Path, *, made: bool = False) -> None:
        self.path = path
        self.config = CONFIG
        self.rows: list[dict[str, str]] = []
        for index in range(CASES):
            for number, channel in enumerate(("t1", "t2") if not made else ()):
                save(path / f"{channel}_{index}.nii.gz", scan(10 * index + number))
            if not made:
                save(path / f"organ_{index}.nii.gz", mask(1, 2, 2, place=index))
            self.rows.append(
                {"id": f"case{index}", "person": f"p{index}"}
                | {column: f"{column}_{index}.nii.gz" for column in ("t1", "t2", "organ")}
                | {"grade": ("low", "high")[index % 2], "size": str(10 * index)}
            )

    def save(self, name: str, array: Array, shift: float = 0.0) -> None:
        save(self.path / f"{name}.nii.gz", array, shift)

    def write(self) -> Config:
        with (self.path / "cohort.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        (self.path / "config.yaml").write_text(self.config)
        return configuration.load(self.path / "config.yaml")

    def check(self) -> Checked:
        config = self.write()
        return check_cohort(config, build_tasks(config))

    def findings(self) -> list[Finding]:
        return list(self.check().findings)

    def headers(self) -> list[Finding]:
        config = self.write()
        return list(check_headers(config, build_tasks(config)).findings)

    def codes(self) -> list[tuple[str, str, int | None]]:
        """Code, severity and row of all that the table and the headers tell."""
        return [(finding.code, finding.severity, finding.row) for finding in self.headers()]

    def only(self) -> Finding:
        (finding,) = self.findings()
        return finding
