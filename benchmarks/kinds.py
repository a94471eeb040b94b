"""Each kind of task beside a plain MONAI script for it alone: how far both get from chance to the oracle.

    medmtl synth --out COHORT --preset hard --cases 400
    python benchmarks/kinds.py COHORT --minutes 6 [--seeds 3] [--tasks lesion malignancy risk survival]
    python benchmarks/kinds.py COHORT --minutes 2 --tune

Both arms train one task, on one thread, for the same minutes of processor time, loader included. The script is what a
careful user writes: MONAI transforms and networks (a DynUNet for the mask, else a small ResNet that keeps the full
resolution at first and sees the whole scan), AdamW, a cosine schedule, flips, noise and brightness; its widths were
tuned on the preset ``easy``, and its rates, but for the survival's, by ``--tune``, which trains it on fold 1. Nothing
of medmtl trains in it; only fold 0 and the cases are the same. Rows are written as they come, and a call that is
repeated goes on where it stopped.

Share of the way: Dice for the mask (0 to 1); (AUC - 0.5) / (oracle's AUC - 0.5) for the class; for the risk
(MAE of the training median - MAE) / (MAE of the training median - oracle's MAE); for the survival as for the class, of
Harrell's C.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lifelines.utils import concordance_index
from monai.data import CacheDataset, DataLoader, set_track_meta
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet, ResNet
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
from timed import Training, add_row, evaluated, read_rows

from medmtl import config
from medmtl.training.start import make_ready

SHAPE = (40, 40, 32)
SPACING = (1.0, 1.0, 1.5)
BATCH = 4
RISK_SET = 16  # patients of a batch of the Cox loss
RATES = {"lesion": 3e-3, "malignancy": 3e-4, "risk": 1e-3, "survival": 1e-3}
TRIED = (3e-4, 1e-3, 3e-3)
CLASSES = ("benign", "malignant")
SURVIVAL = "  survival: {kind: survival, time: time, event: event, horizon: 1095}\n"
TASKS = ("lesion", "malignancy", "risk", "survival")
METRICS = {"lesion": "dice", "malignancy": "auc", "risk": "mae", "survival": "c_index"}
Row = dict[str, str]


def main() -> None:
    """Train and score what is not in the table yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--arms", nargs="+", default=["script", "medmtl"], choices=["script", "medmtl"])
    parser.add_argument("--tune", action="store_true", help="find the script's rates instead, on fold 1")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.tune:
        tune(given.cohort, given.tasks, given.minutes)
        return
    done_file = given.cohort / f"kinds-{given.minutes:g}.jsonl"
    train, val = divided(given.cohort)
    print("| task | arm | seed | score | oracle | chance | share of the way | steps | processor time, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task in given.tasks:
        for seed in range(given.seeds):
            for arm in given.arms:
                done = read_rows(done_file)
                wanted = {"task": task, "arm": arm, "seed": seed}
                found = next((row for row in done if wanted.items() <= row.items()), None)
                if found is None:
                    run = run_script if arm == "script" else run_medmtl
                    found = {**wanted, **run(given.cohort, task, train, val, given.minutes * 60, seed)}
                    add_row(done_file, found)
                cells = [task, arm, seed, *(f"{found[k]:.3f}" for k in ("score", "oracle", "chance", "share"))]
                print(
                    "| " + " | ".join(map(str, [*cells, found["steps"], f"{found['seconds']:.0f}"])) + " |", flush=True
                )


def tune(cohort: Path, tasks: Sequence[str], minutes: float) -> None:
    """Train the script at each rate on a fold that the comparison does not score."""
    done_file = cohort / f"tune-{minutes:g}.jsonl"
    train, val = divided(cohort, fold=1)
    print("| task | rate | score | share of the way | steps |\n|---|---|---|---|---|")
    for task in tasks:
        for rate in TRIED:
            wanted = {"task": task, "rate": rate}
            found = next((row for row in read_rows(done_file) if wanted.items() <= row.items()), None)
            if found is None:
                found = wanted | run_script(cohort, task, train, val, minutes * 60, seed=0, rate=rate)
                add_row(done_file, found)
            print(f"| {task} | {rate:g} | {found['score']:.3f} | {found['share']:.3f} | {found['steps']} |", flush=True)


def divided(cohort: Path, fold: int = 0) -> tuple[list[Row], list[Row]]:
    """Rows of a fold, with the oracle's answers joined to them; every arm gets these folds as a file."""
    whole = cohort / "config-all.yaml"
    text = (cohort / "config.yaml").read_text()
    whole.write_text(re.sub(r"  # survival:.*\n", SURVIVAL, text))
    folds = make_ready(config.load(whole)).splits.folds
    stored = [{"train": list(fold.train), "val": list(fold.val)} for fold in folds]
    (cohort / "splits.json").write_text(json.dumps(stored))
    for task in TASKS:
        others = "|".join(name for name in TASKS if name != task)
        (cohort / f"config-{task}.yaml").write_text(re.sub(rf"  ({others}):.*\n", "", whole.read_text()))
    with (cohort / "cohort.csv").open() as table, (cohort / "latents.csv").open() as latents:
        truth = {row["case_id"]: row for row in csv.DictReader(latents)}
        rows = {row["case_id"]: {**truth[row["case_id"]], **row} for row in csv.DictReader(table)}
    return [rows[name] for name in folds[fold].train], [rows[name] for name in folds[fold].val]


def run_medmtl(
    cohort: Path, task: str, train: Sequence[Row], val: Sequence[Row], seconds: float, seed: int
) -> dict[str, Any]:
    """The package with this task alone; a short run tells what a step costs."""
    overrides = {
        "split.file": str(cohort / "splits.json"),
        "training.seed": seed,
        "training.checkpoint_every": 100_000,
        "plan.threads": 1,
    }
    training = Training(cohort / f"config-{task}.yaml", cohort / "run", overrides)
    steps = training.steps_in(seconds)
    took = training.fit(steps=steps)
    found = evaluated(cohort / "run")[task]["metrics"]
    shutil.rmtree(cohort / "run")
    labelled = [row for row in val if row["time" if task == "survival" else task]]
    oracle, chance = bounds(task, train, labelled)
    return shared(found[METRICS[task]]["value"], oracle, chance) | {"steps": steps, "seconds": took.whole}


def run_script(
    cohort: Path,
    task: str,
    train: Sequence[Row],
    val: Sequence[Row],
    seconds: float,
    seed: int,
    rate: float | None = None,
) -> dict[str, Any]:
    """The plain script, at its task's rate or another; the risk's median and spread come from the training cases."""
    torch.manual_seed(seed)
    column = "time" if task == "survival" else task
    train, val = ([row for row in rows if row[column]] for rows in (train, val))
    values = [float(row["risk"]) for row in train if task == "risk"] or [0.0, 1.0]
    scale = (float(np.median(values)), float(np.std(values)))
    with_mask = task == "lesion"
    network = (
        DynUNet(3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=(16, 32, 64, 128), res_block=False)
        if with_mask
        else ResNet(
            "basic",
            [1, 1, 1, 1],
            [16, 32, 64, 128],
            spatial_dims=3,
            n_input_channels=1,
            conv1_t_size=3,
            conv1_t_stride=1,
            no_max_pool=True,
            num_classes=2 if task == "malignancy" else 1,
        )
    )
    loader = DataLoader(
        CacheDataset([sample(cohort, row, task) for row in train], transforms(with_mask, random=True), progress=False),
        batch_size=RISK_SET if task == "survival" else BATCH,
        shuffle=True,
        drop_last=True,
    )
    begin = time.process_time()
    steps = fit(network, loader, task, scale, seconds, RATES[task] if rate is None else rate)
    used = time.process_time() - begin
    checked = CacheDataset(
        [sample(cohort, row, task) for row in val], transforms(with_mask, random=False), progress=False
    )
    network.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        outputs = [(network(item["image"][None])[0].float(), item) for item in checked]
    oracle, chance = bounds(task, train, val)
    return shared(score(task, outputs, val, scale), oracle, chance) | {"steps": steps, "seconds": used}


def sample(cohort: Path, row: Row, task: str) -> dict[str, Any]:
    """What the transforms read."""
    target: Any = {
        "lesion": lambda: str(cohort / row["lesion"]),
        "malignancy": lambda: CLASSES.index(row["malignancy"]),
        "risk": lambda: float(row["risk"]),
        "survival": lambda: np.array([float(row["time"]), float(row["event"])], np.float32),
    }[task]()
    return {"image": str(cohort / row["image"]), "target": target}


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


def fit(
    network: torch.nn.Module, loader: Any, task: str, scale: tuple[float, float], seconds: float, rate: float
) -> int:
    """AdamW with a cosine schedule over the processor time given; returns the steps."""
    dice_ce = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    network.train()
    begin, steps = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds:
        for batch in loader:
            spent = time.process_time() - begin
            for group in optimiser.param_groups:
                group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * min(1.0, spent / seconds)))
            with torch.autocast("cpu", torch.bfloat16):
                output = network(batch["image"])
            output, target = output.float(), batch["target"]
            if task == "lesion":
                loss = dice_ce(output, target)
            elif task == "malignancy":
                loss = torch.nn.functional.cross_entropy(output, target)
            elif task == "risk":
                loss = torch.nn.functional.huber_loss(output[:, 0], (target.float() - scale[0]) / scale[1])
            else:
                loss = cox_loss(output[:, 0], target[:, 0], target[:, 1])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
            if spent >= seconds:
                break
    return steps


def cox_loss(risk_B: torch.Tensor, time_B: torch.Tensor, event_B: torch.Tensor) -> torch.Tensor:
    """Breslow's negative partial log likelihood per event, over the batch."""
    at_risk_BB = time_B[None, :] >= time_B[:, None]
    everybody_B = risk_B[None, :].masked_fill(~at_risk_BB, -torch.inf).logsumexp(dim=1)
    return ((everybody_B - risk_B) * event_B).sum() / event_B.sum().clamp(min=1)


def score(task: str, outputs: list[Any], val: Sequence[Row], scale: tuple[float, float]) -> float:
    """The metric of the task."""
    if task == "lesion":
        overlaps = []
        for logits, item in outputs:
            found, truth = logits.argmax(0) == 1, item["target"][0] > 0
            if truth.any() or found.any():
                overlaps.append(float(2 * (found & truth).sum() / (found.sum() + truth.sum())))
        return float(np.mean(overlaps))
    if task == "malignancy":
        return float(roc_auc_score(*truths(val), [float(logits[1] - logits[0]) for logits, _ in outputs]))
    if task == "risk":
        risk = np.array([float(row["risk"]) for row in val])
        return float(np.abs(risk - np.array([float(logits[0]) * scale[1] + scale[0] for logits, _ in outputs])).mean())
    return concordance(val, [float(logits[0]) for logits, _ in outputs])


def truths(rows: Sequence[Row]) -> tuple[list[int]]:
    """Class indices, as an argument."""
    return ([CLASSES.index(row["malignancy"]) for row in rows],)


def concordance(rows: Sequence[Row], risk: Sequence[float]) -> float:
    """Harrell's C of a risk."""
    times, events = [float(row["time"]) for row in rows], [float(row["event"]) for row in rows]
    return float(concordance_index(times, [-value for value in risk], events))


def bounds(task: str, train: Sequence[Row], val: Sequence[Row]) -> tuple[float, float]:
    """What the oracle and what the best constant reach on the same cases."""
    if task == "lesion":
        return 1.0, 0.0
    if task == "malignancy":
        return float(roc_auc_score(*truths(val), [float(row["oracle_malignancy"]) for row in val])), 0.5
    if task == "survival":
        return concordance(val, [float(row["oracle_log_hazard"]) for row in val]), 0.5
    risk = np.array([float(row["risk"]) for row in val])
    median = float(np.median([float(row["risk"]) for row in train if row["risk"]]))
    oracle = np.array([float(row["oracle_risk"]) for row in val])
    return float(np.abs(risk - oracle).mean()), float(np.abs(risk - median).mean())


def shared(value: float, oracle: float, chance: float) -> dict[str, float]:
    """The score with its share of the way from chance to the oracle."""
    return {"score": value, "oracle": oracle, "chance": chance, "share": (value - chance) / (oracle - chance)}


if __name__ == "__main__":
    main()
