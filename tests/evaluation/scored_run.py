"""A run and its scores, made without a network: what a page is written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medmtl.data.formats.nifti import write_mask
from medmtl.data.prepared import Intensity, Preparation
from medmtl.data.split import Balance, Fold, Splits
from medmtl.data.volume import Grid, Volume
from medmtl.evaluation.score import Scores, metrics_json
from medmtl.evaluation.site import Learned, within_estimates
from medmtl.files import make_private_folder, write_json
from medmtl.networks.shape import NetworkShape
from medmtl.planning import Plan
from medmtl.run_folder import MANIFEST_KEYS, RunFolder
from medmtl.tasks.base import CaseTask, ScoredCase, Task
from medmtl.tasks.classification import Classification, ClassificationOptions, ClassificationResult
from medmtl.tasks.regression import Regression
from medmtl.tasks.regression.task import RegressionOptions, RegressionResult
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions

CASES = 24
LEARNED: dict[str, Learned] = {
    "grade": {key: [("North", "high"), ("South & <Sons>", "low"), ("North", "low")] for key in range(3)},
    "size": {key: [("North", 10.0), ("South & <Sons>", 11.0)] for key in range(3)},
}
GRID = Grid((40, 32, 9), np.diag([1.0, 1.0, 4.0, 1.0]))
PLACE = np.stack(np.meshgrid(*(np.arange(size) for size in GRID.shape), indexing="ij"))


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    scale = np.array([1.0, 1.0, 4.0]).reshape(3, 1, 1, 1)
    distance: np.ndarray[Any, np.dtype[np.float64]] = np.linalg.norm(
        (PLACE - np.array(centre).reshape(3, 1, 1, 1)) * scale, axis=0
    )
    return distance <= radius


def lesion(centre: tuple[float, float, float], radius: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return (ball(centre, radius).astype(np.uint8) + ball(centre, radius / 2)).astype(np.uint8)


PLAN = Plan(
    preparation=Preparation((1.0, 1.0, 4.0), ("t1",), {"lesion": "mask"}),
    intensities=(Intensity("zscore"),),
    view="case",
    shape=(40, 32, 16),
    batch=2,
    network=NetworkShape(1, (8, 16), ((3, 3, 3), (3, 3, 3)), ((1, 1, 1), (2, 2, 2))),
    device="cpu",
    precision="fp32",
    threads=2,
    workers=1,
    steps=400,
    minutes=None,
    memory_bytes=2_500_000_000,
    reasons={
        "spacing": "median voxel size of the cohort",
        "normalisation.t1": "no scan is masked",
        "batch": "fits",
    },
)


def make_tasks() -> dict[str, Task]:
    regions: dict[str, tuple[str, ...]] = {"whole": ("rim", "core")}
    labels = {"rim": 1, "core": 2}
    return {
        "lesion": Segmentation(
            "lesion", SegmentationOptions(kind="segmentation", column="mask", labels=labels, regions=regions)
        ),
        "grade": Classification(
            "grade", ClassificationOptions(kind="classification", column="grade", classes=("low", "high"))
        ),
        "size": Regression(
            "size", RegressionOptions(kind="regression", column="size", unit="ml"), {"median_value": 10.0}
        ),
    }


def make_scores(folder: Path) -> Scores:
    """Twenty-four cases at two sites; the grade goes with the site, and the model knows the site better."""
    rng = np.random.default_rng(3)
    tasks = make_tasks()
    segmentation, size = tasks["lesion"], tasks["size"]
    assert isinstance(segmentation, Segmentation) and isinstance(size, CaseTask)
    cases: dict[str, list[ScoredCase]] = {name: [] for name in tasks}
    images: dict[str, dict[str, Path]] = {}
    make_private_folder((out := folder / "evaluation") / "masks" / "lesion")
    for index in range(CASES):
        site = "North" if index % 2 else "South & <Sons>"
        who = (f"subject-{index:03d}", f"patient-{index:03d}", site, index % 3)
        centre, radius = (15 + rng.uniform(0, 10), 12 + rng.uniform(0, 8), 4.0), 5 + rng.uniform(0, 4)
        truth = lesion(centre, radius)
        found = lesion((centre[0] + rng.uniform(0, 4), centre[1], centre[2]), radius)
        scan = (100 + 60 * truth + rng.normal(0, 12, GRID.shape)).clip(0, 255).astype(np.uint8)
        label, image = folder / f"label-{index}.nii.gz", folder / f"image-{index}.nii.gz"
        for file, array in ((label, truth), (image, scan), (out / f"masks/lesion/{who[0]}.nii.gz", found)):
            write_mask(file, array, GRID)
        images[who[0]] = {"t1": image, "t2": folder / "absent.nii.gz"}
        scores = segmentation.mask_scores(found, truth, GRID.spacing)
        cases["lesion"].append(ScoredCase(*who, label, segmentation.result(Volume(found, GRID)), scores))
        high = rng.random() < (0.8 if index % 2 else 0.2)
        p = float(np.clip((0.7 if index % 2 else 0.3) + 0.08 * high + rng.normal(0, 0.15), 0.01, 0.99))
        answer = ClassificationResult(label="high" if p > 0.5 else "low", probabilities={"low": 1 - p, "high": p})
        cases["grade"].append(ScoredCase(*who, "high" if high else "low", answer))
        volume = 10 + rng.normal(0, 3)
        value = RegressionResult(value=volume + rng.normal(0, 1.5))
        cases["size"].append(ScoredCase(*who, volume, value, size.result_scores(value, volume)))
    metrics = metrics_json("val", [0, 1, 2], CASES, tasks, cases, LEARNED)
    within = {name: within_estimates(task, cases[name]) for name, task in tasks.items()}
    return Scores("val", (0, 1, 2), tasks, cases, metrics, out, images, within=within)


def make_run(folder: Path) -> RunFolder:
    run = RunFolder(folder / "fold-0")
    make_private_folder(run.path)
    ids = tuple(f"subject-{index:03d}" for index in range(CASES))
    parts: tuple[tuple[Literal["train", "val"], int], ...] = (("train", 16), ("val", 8))
    balance = tuple(
        Balance(fold, part, count, count, {"grade: low": count // 2, "grade: high": count - count // 2})
        for fold in range(3)
        for part, count in parts
    )
    folds = tuple(Fold(tuple(sorted({*ids} - {*ids[k::3]})), ids[k::3]) for k in range(3))
    write_json(run.plan, PLAN.to_json())
    write_json(run.splits, Splits(folds, (), balance).to_json())
    write_json(run.manifest, {**dict.fromkeys(MANIFEST_KEYS, ""), "fold": 0, "versions": {"medmtl": "9.9"}})
    blank = dict.fromkeys(("case", "row", "column", "key", "line", "file", "found", "expected", "fix"))
    warning = {
        **blank,
        "code": "B105",
        "severity": "warn",
        "file": "labels/secret.nii",
        "found": "no voxel <b>labelled</b>",
    }
    write_json(run.findings, [warning, warning, {**blank, "code": "B003", "severity": "fixed", "found": "a mark"}])
    log: list[dict[str, Any]] = [
        {"step": step, "losses": {"lesion": 1 / step, "size": 0.5 + 1 / step}} for step in range(1, 401)
    ]
    log += [{"step": 400, "validation": {"lesion": 0.2, "size": None}}]
    verdict = {"verdict": "collapsed", "sentence": "nearly constant", "spread": 0.01, "probe_r2": 0.5, "cases": 16}
    log += [{"step": 400, "collapse": {"task": "grade", **verdict}}]
    timing = {"seconds": 10.0, "steps": 400, "waiting_share": 0.0312, "peak_memory_bytes": 1_500_000_000}
    log += [
        {"step": 400, "timing": {**timing, "worker_peak_memory_bytes": 250_000_000, "planned_memory_bytes": 25 * 10**8}}
    ]
    run.log_file.write_text("".join(json.dumps(record) + "\n" for record in log))
    return run
