"""A plain MONAI script for masks and case labels: what somebody without the package writes, with care.

    python benchmarks/script.py CONFIG --table cohort.csv [--fold 1] [--minutes 3] [--seed 0] [--threads 1]
                                [--clock processor] [--set rate=2e-3 ...]

One DynUNet with a softmax per mask and a small head on its bottleneck for the case labels; Dice and cross-entropy,
AdamW, a polynomial schedule over the time given, bfloat16, the whole scan as one patch, noise, brightness, gamma and
small turns. Masks are predicted by a sliding window, resampled to the scan's own grid, and scored there. Nothing of
the package trains or scores in it; the package's check gives the cases of the fold. ``benchmarks/equal_minutes.py``
has both at the same minutes. What is in ``script_studies.Recipe`` is what to tune, on folds 1 to 4.
"""

from __future__ import annotations

import argparse
import ast
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, set_track_meta
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandSpatialCropd,
    ResizeWithPadOrCrop,
    SelectItemsd,
    Spacingd,
    SpatialPadd,
)
from monai.utils import set_determinism
from script_scores import NativeLabels, auc, mask_dice, skill
from script_studies import STUDIES, Recipe, Study
from timed import CLOCKS, ClockKind
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medmtl import config
from medmtl.training.start import make_ready

POWER = 0.9
CLIP = 12.0
HIDDEN = 64
Cells = dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What a run reached.

    Attributes:
        steps, seconds: of the training loop.
        scores: task -> mean Dice, AUC or skill on the held-out cases.
        dice: case -> mask task -> its mean Dice, where it has one.
    """

    steps: int
    seconds: float
    scores: dict[str, float | None]
    dice: dict[str, dict[str, float]]


class Network(nn.Module):
    """A DynUNet, and a head on the mean and maximum of its bottleneck.

    Args:
        study: of the cohort.
        recipe: of the study, or another.
    """

    def __init__(self, study: Study, recipe: Recipe) -> None:
        super().__init__()
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=len(study.images),
            out_channels=len(study.masks) * (study.labels + 1),
            kernel_size=study.kernels,
            strides=study.strides,
            upsample_kernel_size=study.strides[1:],
            filters=recipe.filters,
            norm_name=("INSTANCE", {"affine": True}),
            deep_supervision=recipe.supervised > 0,
            deep_supr_num=max(1, recipe.supervised),
        )
        outputs = sum(map(len, study.classes.values())) + len(study.ranges)
        self.head = nn.Sequential(
            nn.Linear(2 * recipe.filters[-1], HIDDEN), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, outputs)
        )
        self.bottom: torch.Tensor | None = None
        self.unet.bottleneck.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, given: Any, output: torch.Tensor) -> None:
        self.bottom = output

    def forward(self, image_BCDHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of all masks, one above the other, and of the case labels."""
        logits = self.unet(image_BCDHW)
        assert self.bottom is not None
        bottom, self.bottom = self.bottom.flatten(2), None
        return logits, self.head(torch.cat([bottom.mean(2), bottom.amax(2)], 1))


def run(
    study: Study,
    recipe: Recipe,
    folder: Path,
    train: Sequence[Cells],
    val: Sequence[Cells],
    *,
    seconds: float,
    seed: int,
    threads: int,
    clock: ClockKind,
) -> Answer:
    """Train for the time given and score the held-out cases.

    Args:
        folder: that paths in the table are relative to.
        train, val: rows of the table.
        seconds: of the training loop, by ``clock``; by the wall clock a second process prepares the samples, by
            processor time this one does, so that its time counts as it goes.
    """
    set_determinism(seed)
    torch.set_num_threads(threads)
    set_track_meta(True)
    scales = {name: scale([float(row[name]) for row in train if row[name]]) for name in study.ranges}
    samples = [sample(study, folder, row, scales) for row in train]
    network = Network(study, recipe)
    workers = 1 if clock == "wall" else 0
    loader = DataLoader(
        CacheDataset(samples, transforms(study, recipe, random=True), progress=False),
        batch_size=recipe.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    now = CLOCKS[clock]
    mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None
    begin = now()
    steps = fit(network, study, recipe, loader, lambda: (now() - begin) / seconds, mean)
    used = now() - begin
    network = network if mean is None else mean.module
    return score(network, study, recipe, folder, val, scales, (steps, used))


def scale(values: Sequence[float]) -> tuple[float, float]:
    """Median and interquartile range of the training cases."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(middle), float(high - low)


def sample(study: Study, folder: Path, row: Cells, scales: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """What the transforms read."""
    files = {column: str(folder / row[column]) for column in (*study.images, *study.masks.values())}
    classes = {name: names.index(row[name]) for name, names in study.classes.items()}
    values = {name: np.float32((float(row[name]) - middle) / width) for name, (middle, width) in scales.items()}
    return {**files, **classes, **values}


def transforms(study: Study, recipe: Recipe, *, random: bool) -> Compose:
    """Read, orient, resample, normalise; in training also masks, padding, and the random half."""
    masks = list(study.masks.values()) if random else []
    keys, modes = [*study.images, *masks], ["bilinear"] * len(study.images) + ["nearest"] * len(masks)
    steps: list[Any] = [
        LoadImaged(keys, reader="NibabelReader", ensure_channel_first=True),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, study.spacing, mode=modes),
        ConcatItemsd(study.images, "image"),
        NormalizeIntensityd("image", channel_wise=True),
    ]
    if not random:
        return Compose(steps)
    joint = ["image", *masks]
    steps.append(SelectItemsd([*joint, *study.classes, *study.ranges]))  # channels of unequal size make no batch
    steps += [SpatialPadd(joint, recipe.shape), EnsureTyped(joint, track_meta=False)]
    steps += [
        RandSpatialCropd(joint, recipe.shape, random_size=False),
        RandAffined(
            joint,
            prob=0.3,
            rotate_range=study.turns,
            scale_range=(study.sizes, study.sizes, 0.0),
            mode=["bilinear"] + ["nearest"] * len(masks),
            padding_mode="zeros",
        ),
        RandGaussianNoised("image", prob=0.2, std=0.1),
        RandScaleIntensityd("image", 0.2, prob=0.2),
        RandAdjustContrastd("image", prob=0.2, gamma=(0.7, 1.5)),
    ]
    return Compose(steps)


def fit(
    network: Network,
    study: Study,
    recipe: Recipe,
    loader: DataLoader,
    spent: Callable[[], float],
    mean: AveragedModel | None,
) -> int:
    """Train until the share of the time that is ``spent`` is 1; returns the steps."""
    overlap = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    groups = [
        {"params": network.unet.parameters(), "base": recipe.rate},
        {"params": network.head.parameters(), "base": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay)
    network.train()
    steps = 0
    for batch in endless(loader):
        share = spent()
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * (1 - share) ** POWER * min(1, (steps + 1) / (recipe.warm_up + 1))
        with torch.autocast("cpu", torch.bfloat16):
            logits, answers = network(batch["image"])
        levels = logits.unbind(1) if recipe.supervised else (logits,)
        weights = [0.5**level for level in range(len(levels))]
        loss = recipe.case_weight * case_loss(study, answers.float(), batch)
        for weight, level in zip(weights, levels, strict=True):
            maps = level.float().split(study.labels + 1, 1)
            for output, column in zip(maps, study.masks.values(), strict=True):
                loss = loss + weight / sum(weights) * overlap(output, batch[column])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        if mean is not None:
            mean.update_parameters(network)
        steps += 1
    return steps


def endless(loader: DataLoader) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of one pass after another."""
    while True:
        yield from loader


def case_loss(study: Study, answers: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the classes and Huber loss of the scaled values, added."""
    parts = parts_of(study, answers)
    loss = torch.zeros(())
    for name in study.classes:
        loss = loss + functional.cross_entropy(parts[name], batch[name])
    for name in study.ranges:
        loss = loss + functional.huber_loss(parts[name][:, 0], batch[name].float())
    return loss


def parts_of(study: Study, answers: torch.Tensor) -> dict[str, torch.Tensor]:
    """Case task -> its outputs."""
    sizes = {name: len(names) for name, names in study.classes.items()} | dict.fromkeys(study.ranges, 1)
    return dict(zip(sizes, answers.split(list(sizes.values()), 1), strict=True))


@torch.inference_mode()
def score(
    network: Network,
    study: Study,
    recipe: Recipe,
    folder: Path,
    val: Sequence[Cells],
    scales: Mapping[str, tuple[float, float]],
    cost: tuple[int, float],
) -> Answer:
    """Predict and score the held-out cases."""
    network.eval()
    prepare = transforms(study, recipe, random=False)
    whole, native = ResizeWithPadOrCrop(recipe.shape), NativeLabels()
    dice: dict[str, dict[str, float]] = {}
    answers: dict[str, list[float]] = {name: [] for name in (*study.classes, *study.ranges)}
    for row in val:
        image = prepare(sample(study, folder, row, scales))["image"]
        with torch.autocast("cpu", torch.bfloat16):
            logits = sliding_window_inference(
                image[None].as_tensor(), recipe.shape, 1, lambda part: network(part)[0].float(), mode="gaussian"
            )[0]
            parts = parts_of(study, network(whole(image)[None].as_tensor())[1].float())
        own = {
            name: mask_dice(*native(output.softmax(0), image.affine, folder / row[column]), study.labels)
            for (name, column), output in zip(study.masks.items(), logits.split(study.labels + 1), strict=True)
        }
        dice[row["case_id"]] = {name: value for name, value in own.items() if value is not None}
        for name in study.classes:
            answers[name].append(float(parts[name].softmax(1)[0, -1]))
        for name, (low, high) in study.ranges.items():
            middle, width = scales[name]
            answers[name].append(min(high, max(low, float(parts[name][0, 0]) * width + middle)))
    scores: dict[str, float | None] = {
        name: fmean(own[name] for own in dice.values() if name in own) for name in study.masks
    }
    scores |= {
        name: auc([row[name] == names[-1] for row in val], answers[name]) for name, names in study.classes.items()
    }
    scores |= {name: skill([float(row[name]) for row in val], answers[name], scales[name][0]) for name in study.ranges}
    return Answer(*cost, scores, dice)


def divided(experiment: Path, table: Path, fold: int) -> tuple[list[Cells], list[Cells]]:
    """Training and held-out rows of a fold, which are those of the package."""
    resolved = config.load(experiment, {"cohort.table": str(table.resolve())})
    chosen = make_ready(resolved).splits.folds[fold]
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    return [rows[name] for name in chosen.train], [rows[name] for name in chosen.val]


def main() -> None:
    """Train once with the settings given and print what it reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2))
    parser.add_argument("--clock", default="processor", choices=tuple(CLOCKS))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the recipe")
    given = parser.parse_args()
    study = STUDIES[given.config.stem]
    changes = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in given.set)}
    found = run(
        study,
        replace(study.recipe, **changes),
        given.table.parent,
        *divided(given.config, given.table, given.fold),
        seconds=given.minutes * 60,
        seed=given.seed,
        threads=given.threads,
        clock=given.clock,
    )
    held = ", ".join(
        f"{name} {'none' if value is None else format(value, '.4f')}" for name, value in found.scores.items()
    )
    name = f"{' '.join(given.set)} fold {given.fold} seed {given.seed}"
    print(f"{name}: {found.steps} steps in {found.seconds:.0f} s: {held}")


if __name__ == "__main__":
    main()
