"""A cohort of five small cases as the loader's tests want it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from medmtl.data.augmentation import Augmentation
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.formats import ImageError
from medmtl.data.loader import StepDataset
from medmtl.data.order import CaseOrder
from medmtl.data.prepared import Intensity, Preparation, Prepared
from medmtl.data.view import View

Made = tuple[list[Case], PreparedCache]

CASES = 5
SIZE = (9, 11, 8)
SHAPE = (12, 12, 12)
CPU = torch.device("cpu")
EVERYTHING = Augmentation((1.0, 1.0, 1.0), flips=(0, 1))
TRUTHS = {"grade": {"c0": 1.5, "c2": 2.5, "c3": 3.5}}


class MadeCache(PreparedCache):
    """A cache whose cases fail as their id says."""

    def get(self, case: Case) -> Prepared:
        in_worker = multiprocessing.parent_process() is not None
        if case.case_id == "refused":
            raise ImageError(
                Path("scan.nii"), "B051", found="a cut stream", expected="a whole one", fix="copy it again"
            )
        if case.case_id == "full":
            raise MemoryError
        if case.case_id == "vast":
            torch.empty(1 << 50)
        if case.case_id == "odd":
            raise ZeroDivisionError("by nothing")
        if case.case_id == "deadly" and in_worker:
            os.kill(os.getpid(), signal.SIGKILL)
        if case.case_id == "leaving" and in_worker:
            os._exit(3)
        return super().get(case)


def encode_organ(label: Any) -> torch.Tensor:
    return torch.from_numpy(label).long()


def encode_grade(truth: float | None) -> torch.Tensor:
    return torch.tensor([0.0 if truth is None else truth])


def made_cohort(folder: Path) -> Made:
    """Five cases whose image is their mask plus ten times their number; the last one has no mask."""
    cases = []
    for number in range(CASES):
        mask = np.random.default_rng(number).integers(0, 3, SIZE).astype(np.uint8)
        paths = {"t1": folder / f"i{number}.nii", "mask": folder / f"m{number}.nii"}
        for path, array in zip(paths.values(), (mask + np.float32(10 * number + 1), mask), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)  # type: ignore[no-untyped-call]
        files = {"mask": paths["mask"]} if number < CASES - 1 else {}
        cases.append(Case(f"c{number}", f"c{number}", None, number + 2, {"t1": paths["t1"]}, files=files))
    cache = MadeCache(folder / "cache", Preparation((1.0, 1.0, 1.0), ("t1",), {"organ": "mask"}))
    cache.ensure(cases, 1)
    return cases, cache


def make(cohort: Made, **changes: Any) -> StepDataset:
    cases = changes.get("cases", cohort[0])
    batch, seed = changes.get("batch", 2), changes.get("seed", 7)
    options: dict[str, Any] = {
        "cases": cases,
        "cache": cohort[1],
        "encoders": {"grade": encode_grade, "organ": encode_organ},
        "voxel": ["organ"],
        "truths": TRUTHS,
        "view": View(changes.pop("view", "case"), changes.pop("shape", SHAPE)),
        "divisor": SHAPE,
        "batch": batch,
        "slots": range(batch),
        "order": CaseOrder.even(range(len(cases)), batch, seed),
        "seed": seed,
        "intensities": [Intensity("none")],
        "augmentation": Augmentation.off((1.0, 1.0, 1.0)),
    }
    return StepDataset(**{**options, **changes})
