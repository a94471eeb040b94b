"""The cohorts of ``script.py``, and what was tuned for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """What was tuned.

    Attributes:
        shape: voxels of a training sample; a smaller scan is padded, a larger one cropped at random.
        filters: of every stage.
        rate, head_rate: peak learning rate of the network and of the case head.
        case_weight: of the sum of the case losses beside the masks'.
        decay: of AdamW.
        supervised: coarser levels of the decoder that are supervised too.
        warm_up: steps in which the rates rise to their peak.
        average: decay per step of averaged weights, which then predict; 0 for the last ones.
    """

    shape: tuple[int, int, int]
    filters: tuple[int, ...]
    batch: int
    rate: float = 4e-3
    head_rate: float = 1e-3
    case_weight: float = 0.1
    decay: float = 1e-2
    supervised: int = 2
    warm_up: int = 0
    average: float = 0.0


@dataclass(frozen=True)
class Study:
    """A cohort as the script knows it.

    Attributes:
        images: columns that become channels.
        masks: task -> column of label files whose values are 0 to ``labels``.
        classes: task -> its classes, the positive one last.
        ranges: task -> legal values of a number.
        spacing: mm per axis to train at.
        strides, kernels: of every stage.
        turns: largest angle about each axis.
        sizes: largest change of size; 0 where a label is a volume.
    """

    images: tuple[str, ...]
    masks: Mapping[str, str]
    labels: int
    classes: Mapping[str, tuple[str, ...]]
    ranges: Mapping[str, tuple[float, float]]
    spacing: tuple[float, float, float]
    strides: tuple[tuple[int, int, int], ...]
    kernels: tuple[tuple[int, int, int], ...]
    turns: tuple[float, float, float]
    sizes: float
    recipe: Recipe


STUDIES = {
    "hippocampus": Study(
        images=("image",),
        masks={"hippocampus": "label"},
        labels=2,
        classes={"size_class": ("normal", "small")},
        ranges={"volume_mm3": (0, np.inf)},
        spacing=(1, 1, 1),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        kernels=((3, 3, 3),) * 4,
        turns=(0.26, 0.26, 0.26),
        sizes=0.0,
        recipe=Recipe(shape=(40, 56, 40), filters=(16, 32, 64, 128), batch=2, average=0.99),
    ),
    "cine": Study(
        images=("image_ed", "image_es"),
        masks={"heart_ed": "label_ed", "heart_es": "label_es"},
        labels=3,
        classes={"lv_function": ("preserved", "reduced"), "vendor": ("Philips", "Siemens")},
        ranges={"lvef": (0, 100)},
        spacing=(1.95, 1.95, 9.6),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2)),
        kernels=((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        turns=(0.0, 0.0, 0.26),
        sizes=0.2,
        recipe=Recipe(shape=(128, 128, 16), filters=(16, 32, 64, 128, 128), batch=2, case_weight=0.02, average=0.99),
    ),
}
