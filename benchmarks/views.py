"""Which view of a large scan a class head learns from: patches, tiles, the whole case, or a window around the lesion.

    python benchmarks/views.py OUT --minutes 3 [--seeds 3] [--cases 250]

Scans of 256 x 256 x 160 voxels of 1 mm hold one lesion of 6 to 12 mm, whose shape and texture make its class by the
formulas of docs/synthetic.md. Every arm trains the mask and the class together for the same minutes of processor time,
loader included, on one thread: a short run per arm tells what its step costs. Rows are written as they come, and a call
that is repeated goes on where it stopped.

| arm | the class head sees |
|---|---|
| patch, maximum | patches that carry the case's label; at prediction the maximum over windows |
| tiles, attention | a bag of tiles, joined by attention (views.kind: tiles) |
| lesion, predicted | a window around the lesion, of the mask in training, then predicted (views.kind: lesion) |
| whole, shared | the whole case at 3 mm, with the patches' encoder (views.kind: two) |
| whole, own encoder | the same with an encoder of its own (views.share: false) |
| lesion, reference | the third arm's model on windows around the reference's lesions: the oracle crop |
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from timed import add_row, read_rows

import medmtl
from medmtl import config
from medmtl.build import build_tasks
from medmtl.data.synthetic.anatomy import HETEROGENEITY, draw_scan
from medmtl.data.synthetic.lesion import draw_lesion, outline
from medmtl.data.synthetic.outcome import malignancy_probability
from medmtl.data.synthetic.preset import PRESETS
from medmtl.rng import generator
from medmtl.tasks.classification import Classification
from medmtl.training.loop import train_run
from medmtl.training.start import Ready, make_ready, start_run

SHAPE = (256, 256, 160)
DIAMETER_MM = (6.0, 12.0)
BACKGROUNDS = 6  # scans without a lesion, which cases share, mirrored and with noise of their own
PATCH = 48  # voxels around a lesion that are drawn anew
GAIN = 400.0  # of the scanner
CLASSES = ("benign", "malignant")
TIMED = 60  # steps that tell what a step costs, behind as many that warm up
ARMS: dict[str, dict[str, Any]] = {
    "patch, maximum": {"tasks.malignancy.kind": "maximum", "tasks.malignancy.evidence": "anywhere"},
    "tiles, attention": {"views.kind": "tiles"},
    "lesion, predicted": {"views.kind": "lesion"},
    "whole, shared": {"views.kind": "two", "views.spacing": [3.0, 3.0, 3.0]},
    "whole, own encoder": {"views.kind": "two", "views.spacing": [3.0, 3.0, 3.0], "views.share": False},
}
CONFIG = """\
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: case_id, channels: {image: image}, allow: [shared-image]}
tasks:
  lesion: {kind: segmentation, column: lesion, labels: {lesion: 1}}
  malignancy: {kind: classification, column: malignancy, classes: [benign, malignant]}
augmentation: {flips: [x, y, z]}
plan: {width: 8, max_width: 64, shape: [48, 48, 48], batch: 2, threads: 1, workers: 0, normalisation: {image: zscore}}
split: {column: split}
training: {steps: 10, checkpoint_every: 100000}
inference: {overlap: 0, precision: bf16}
"""


class Maximum(Classification):
    """A classification whose answer for a case is that of the window which is surest of the last class."""

    kind = "maximum"

    def over_windows(self, activation_WK: torch.Tensor) -> torch.Tensor:
        """The row with the largest probability of the last class."""
        return activation_WK[activation_WK[:, -1].argmax()]


def main() -> None:
    """Make the cohort, train and score what is not in the table yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cases", type=int, default=250)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    given = parser.parse_args()
    medmtl.register(Maximum)
    if not (given.out / "config.yaml").exists():
        write_cohort(given.out, given.cases)
    done_file = given.out / f"views-{given.minutes:g}.jsonl"
    print("| arm | seed | AUC | 95 % interval | Dice | steps | processor time, s |\n|---|---|---|---|---|---|---|")
    for seed in range(given.seeds):
        for arm in given.arms:
            rows = [row for row in read_rows(done_file) if arm in (row["arm"], row["of"]) and row["seed"] == seed]
            if not rows:
                rows = run(given.out, arm, given.minutes * 60, seed)
                for row in rows:
                    add_row(done_file, row)
            for row in rows:
                low, high = row["ci95"] or (float("nan"), float("nan"))
                cells = [row["arm"], seed, f"{row['auc']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['dice']:.3f}"]
                print("| " + " | ".join(map(str, [*cells, row["steps"], f"{row['seconds']:.0f}"])) + " |", flush=True)
    print(f"\nThe oracle, which knows the traits, reaches {oracle_auc(given.out):.3f} on the same cases.")


def run(out: Path, arm: str, seconds: float, seed: int) -> list[dict[str, Any]]:
    """Train an arm for a time of the processor and score it; its own row, and that of the reference's windows."""
    overrides = {**ARMS[arm], "training.seed": seed}
    folder = out / f"run-{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    steps = max(1, int(seconds / step_seconds(out, arm)))
    ends = train(out, folder, overrides | {"training.steps": steps})
    used = ends[-1] - ends[0]
    medmtl.evaluate(folder, device="cpu")
    tasks = json.loads((folder / "evaluation" / "val" / "metrics.json").read_text())["tasks"]
    shutil.rmtree(folder)
    rows = []
    for name, metric in ((arm, "auc"), ("lesion, reference", "auc_reference_window")):
        found = tasks["malignancy"]["metrics"].get(metric)
        if found:
            rows.append(
                {
                    "arm": name,
                    "of": None if name == arm else arm,
                    "seed": seed,
                    "auc": found["value"],
                    "ci95": found.get("ci95"),
                    "dice": tasks["lesion"]["metrics"]["dice"]["value"],
                    "steps": steps,
                    "seconds": used,
                }
            )
    return rows


def step_seconds(out: Path, arm: str) -> float:
    """What a step of an arm costs, by a short run; measured once, for all seeds."""
    file = out / "costs.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    if arm not in known:
        ends = train(out, out / "short", {**ARMS[arm], "training.steps": 2 * TIMED})
        # a mean would hold the checks at the end, which cost the same whatever the length
        known[arm] = float(np.median(np.diff(ends[TIMED:])))
        file.write_text(json.dumps(known))
    return known[arm]


def train(out: Path, folder: Path, overrides: dict[str, Any]) -> list[float]:
    """Train anew; returns this process's processor time at the end of each step. It loads its batches itself."""
    shutil.rmtree(folder, ignore_errors=True)
    ends: list[float] = []

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train":
            ends.append(time.process_time())

    ready = checked(out)
    settings = config.load(out / "config.yaml", overrides)
    run = start_run(replace(ready, config=settings, tasks=build_tasks(settings)), folder, 0, "cpu")
    train_run(run, progress=tell)
    return ends


@cache
def checked(out: Path) -> Ready:
    """The cohort, whose files are read once for all arms and seeds."""
    return make_ready(config.load(out / "config.yaml"))


def write_cohort(out: Path, cases: int) -> None:
    """Scans, masks and a table; one case in five is held out."""
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True, exist_ok=True)
    preset = PRESETS["easy"]
    field = (float(SHAPE[0]), float(SHAPE[1]), float(SHAPE[2]))
    wide = type(preset)(
        **{**vars(preset), "field_mm": field, "spacing_mm": (1.0, 1.0, 1.0), "diameter_mm": DIAMETER_MM}
    )
    backgrounds = [background(wide, number) for number in range(BACKGROUNDS)]
    rows = []
    for number in range(cases):
        rng = generator(0, "views", number)
        wanted = number % 2 == 1
        while True:
            lesion = draw_lesion(wide, rng)
            probability = malignancy_probability(wide, lesion)
            if (rng.uniform() < probability) == wanted:
                break
        # in pairs: each background is that of as many benign cases as malignant ones, or it would tell the class
        image, mask = lay(backgrounds[number // 2 % BACKGROUNDS], lesion, rng)
        name = f"case_{number:03}"
        for kind, array in (("images", image), ("labels", mask)):
            data = nib.Nifti1Image(array, np.eye(4)).to_bytes()  # type: ignore[no-untyped-call]
            (out / kind / f"{name}.nii.gz").write_bytes(gzip.compress(data, compresslevel=1, mtime=0))
        rows.append(
            {
                "case_id": name,
                "image": f"images/{name}.nii.gz",
                "lesion": f"labels/{name}.nii.gz",
                "malignancy": CLASSES[wanted],
                "split": "val" if number % 10 in (0, 1) else "train",
                "oracle": f"{probability:.6f}",
            }
        )
    with (out / "cohort.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (out / "config.yaml").write_text(CONFIG)


def background(preset: Any, number: int) -> np.ndarray[Any, Any]:
    """A scan without a lesion, cropped or padded to the shape."""
    scan = draw_scan(preset, None, "north", 1, generator(0, "background", number)).channels[0]
    found = np.zeros(SHAPE, np.float32)
    x, y, z = (min(n, m) for n, m in zip(scan.shape, SHAPE, strict=True))
    found[:x, :y, :z] = scan[:x, :y, :z]
    return found


def lay(scan: np.ndarray[Any, Any], lesion: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """A mirrored background with fresh noise and a lesion somewhere in its middle half."""
    axes = tuple(axis for axis in range(3) if rng.uniform() < 0.5)
    image = np.flip(scan, axes).copy()
    image += 8.0 * rng.standard_normal(SHAPE, dtype=np.float32)
    corner = [int(rng.integers(n // 4, 3 * n // 4 - PATCH // 2)) - PATCH // 4 for n in SHAPE]
    part = tuple(slice(c, c + PATCH) for c in corner)
    points = np.stack(np.meshgrid(*[np.arange(PATCH) - (PATCH - 1) / 2.0] * 3, indexing="ij"), axis=-1)
    found, opacity = outline(lesion, points, np.ones((PATCH,) * 3, bool), rng)
    texture = gaussian_filter(rng.standard_normal((PATCH,) * 3), 1.2)
    difference = lesion.contrast * (1 + HETEROGENEITY * lesion.heterogeneity * texture / texture.std())
    image[part] += opacity * (GAIN * (0.5 + difference) - image[part])
    mask = np.zeros(SHAPE, np.uint8)
    mask[part] = found
    return np.rint(np.maximum(image, 0)).astype(np.int16), mask


def oracle_auc(out: Path) -> float:
    """Of the probability that the traits give, on the held-out cases."""
    from sklearn.metrics import roc_auc_score

    with (out / "cohort.csv").open() as file:
        held = [row for row in csv.DictReader(file) if row["split"] == "val"]
    return float(
        roc_auc_score([row["malignancy"] == CLASSES[1] for row in held], [float(row["oracle"]) for row in held])
    )


if __name__ == "__main__":
    main()
