"""What a plain MONAI script, one task at a time, reaches on a synthetic cohort: how far from chance to the oracle.

    medmtl synth --out COHORT --preset hard --cases 400
    python benchmarks/single_task.py COHORT --minutes 5 [--seeds 3] [--tasks lesion malignancy risk]

Nothing of medmtl trains here: a DynUNet for the mask, a ResNet-10 of whole scans for the class and the risk, MONAI
transforms, AdamW, a cosine schedule. Only the split is medmtl's fold 0, so that both are scored on the same cases. It
is what many a paper's baseline is: sound, and not tuned to the cohort. The minutes count training alone, from cached
cases. Rows are written as they come, and a call that is repeated goes on where it stopped.

Share of the way: Dice for the mask (0 to 1); (AUC - 0.5) / (oracle's AUC - 0.5) for the class; for the risk
(MAE of the training median - MAE) / (MAE of the training median - oracle's MAE).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, set_track_meta
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet, resnet10
from monai.transforms import (
    Compose,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    ResizeWithPadOrCropd,
    Spacingd,
)
from sklearn.metrics import roc_auc_score

from medmtl import config
from medmtl.training.start import make_ready

SHAPE = (48, 48, 32)
SPACING = (1.0, 1.0, 2.0)
BATCH = 4
CLASSES = ("benign", "malignant")
Row = dict[str, str]


def main() -> None:
    """Train and score what is not in the table yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["lesion", "malignancy", "risk"])
    given = parser.parse_args()
    done_file = given.cohort / f"single_task-{given.minutes:g}.jsonl"
    done = [json.loads(line) for line in done_file.read_text().splitlines()] if done_file.exists() else []
    train, val = divided(given.cohort)
    print("| task | seed | score | oracle | chance | share of the way | steps |\n|---|---|---|---|---|---|---|")
    for task in given.tasks:
        for seed in range(given.seeds):
            found = next((row for row in done if (row["task"], row["seed"]) == (task, seed)), None)
            if found is None:
                found = {"task": task, "seed": seed, **run(given.cohort, task, train, val, given.minutes * 60, seed)}
                with done_file.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            cells = [task, seed, *(f"{found[k]:.3f}" for k in ("score", "oracle", "chance", "share")), found["steps"]]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def divided(cohort: Path) -> tuple[list[Row], list[Row]]:
    """Rows of fold 0, with the oracle's answers joined to them."""
    fold = make_ready(config.load(cohort / "config.yaml")).splits.folds[0]
    with (cohort / "cohort.csv").open() as table, (cohort / "latents.csv").open() as latents:
        truth = {row["case_id"]: row for row in csv.DictReader(latents)}
        rows = {row["case_id"]: {**truth[row["case_id"]], **row} for row in csv.DictReader(table)}
    return [rows[name] for name in fold.train], [rows[name] for name in fold.val]


def run(cohort: Path, task: str, train: list[Row], val: list[Row], seconds: float, seed: int) -> dict[str, Any]:
    """Train for a time and score; the median and spread of the risk come from the training cases."""
    torch.manual_seed(seed)
    train, val = ([row for row in rows if row[task]] for rows in (train, val))
    values = [float(row["risk"]) for row in train if task == "risk"] or [0.0, 1.0]
    scale = (float(np.median(values)), float(np.std(values)))
    with_mask = task == "lesion"
    network = (
        DynUNet(3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=(16, 32, 64, 128), res_block=False)
        if with_mask
        else resnet10(spatial_dims=3, n_input_channels=1, num_classes=2 if task == "malignancy" else 1)
    )
    loader = DataLoader(
        CacheDataset([sample(cohort, row, task) for row in train], transforms(with_mask, random=True), progress=False),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
    )
    steps = fit(network, loader, task, scale, seconds)
    checked = CacheDataset(
        [sample(cohort, row, task) for row in val], transforms(with_mask, random=False), progress=False
    )
    network.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        outputs = [(network(item["image"][None])[0].float(), item) for item in checked]
    return {**score(task, outputs, val, scale), "steps": steps}


def sample(cohort: Path, row: Row, task: str) -> dict[str, Any]:
    """What the transforms read."""
    target = {"lesion": lambda: str(cohort / row["lesion"]), "malignancy": lambda: CLASSES.index(row["malignancy"])}
    return {"image": str(cohort / row["image"]), "target": target.get(task, lambda: float(row["risk"]))()}


def transforms(with_mask: bool, *, random: bool) -> Compose:
    """Read, orient, resample, normalise, pad; flips, noise and brightness in training."""
    set_track_meta(True)
    keys = ["image", "target"] if with_mask else ["image"]
    modes = ["bilinear", "nearest"][: len(keys)]
    steps: list[Any] = [
        LoadImaged(keys, ensure_channel_first=True),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, SPACING, mode=modes),
        NormalizeIntensityd("image"),
        ResizeWithPadOrCropd(keys, SHAPE),
        EnsureTyped(keys, track_meta=False),
    ]
    if random:
        steps += [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)]
        steps += [RandGaussianNoised("image", prob=0.2, std=0.1), RandScaleIntensityd("image", 0.2, prob=0.3)]
    return Compose(steps)


def fit(network: torch.nn.Module, loader: Any, task: str, scale: tuple[float, float], seconds: float) -> int:
    """AdamW with a cosine schedule over the time given; returns the steps."""
    dice_ce = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    network.train()
    begin, steps = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds:
        for batch in loader:
            spent = time.perf_counter() - begin
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * min(1.0, spent / seconds)))
            with torch.autocast("cpu", torch.bfloat16):
                output = network(batch["image"])
            output, target = output.float(), batch["target"]
            if task == "lesion":
                loss = dice_ce(output, target)
            elif task == "malignancy":
                loss = torch.nn.functional.cross_entropy(output, target)
            else:
                loss = torch.nn.functional.huber_loss(output[:, 0], (target.float() - scale[0]) / scale[1])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
            if spent >= seconds:
                break
    return steps


def score(task: str, outputs: list[Any], val: list[Row], scale: tuple[float, float]) -> dict[str, float]:
    """The score of the task, the oracle's on the same cases, chance, and the share of the way between."""
    if task == "lesion":
        overlaps = []
        for logits, item in outputs:
            found, truth = logits.argmax(0) == 1, item["target"][0] > 0
            if truth.any():
                overlaps.append(float(2 * (found & truth).sum() / (found.sum() + truth.sum())))
        return {"score": float(np.mean(overlaps)), "oracle": 1.0, "chance": 0.0, "share": float(np.mean(overlaps))}
    if task == "malignancy":
        truth = [CLASSES.index(row["malignancy"]) for row in val]
        found = float(roc_auc_score(truth, [float(logits[1] - logits[0]) for logits, _ in outputs]))
        oracle = float(roc_auc_score(truth, [float(row["oracle_malignancy"]) for row in val]))
        return {"score": found, "oracle": oracle, "chance": 0.5, "share": (found - 0.5) / (oracle - 0.5)}
    risk = np.array([float(row["risk"]) for row in val])
    predicted = np.array([float(logits[0]) * scale[1] + scale[0] for logits, _ in outputs])
    oracle_risk = np.array([float(row["oracle_risk"]) for row in val])
    errors = [float(np.abs(risk - value).mean()) for value in (predicted, oracle_risk, scale[0])]
    return {
        "score": errors[0],
        "oracle": errors[1],
        "chance": errors[2],
        "share": (errors[2] - errors[0]) / (errors[2] - errors[1]),
    }


if __name__ == "__main__":
    main()
