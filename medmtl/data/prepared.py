"""A case after the deterministic half of its transforms: what the cache holds and what training and prediction read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medmtl.data.box_table import Frame
from medmtl.data.volume import Grid


@dataclass(frozen=True)
class Preparation:
    """Settings of the deterministic half; part of the cache key.

    Attributes:
        spacing: working voxel size in mm, per axis of the RAS-ordered array.
        channels: channel names in input order.
        labels: label task or box task -> column of its label file or table of boxes.
        resample_to_first: bring the other channels to the first one's grid instead of refusing a difference.
        ignored: label task -> value of voxels that nobody labelled.
        maps: map task -> column of its values, and column of the mask of those that count, or None.
        optional: channels that a case may lack.
        boxes: box task -> frame of its tables, for those of which ``labels`` names tables.
    """

    spacing: tuple[float, float, float]
    channels: tuple[str, ...]
    labels: Mapping[str, str]
    resample_to_first: bool = False
    ignored: Mapping[str, int] = field(default_factory=dict)
    maps: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    boxes: Mapping[str, Frame] = field(default_factory=dict)


@dataclass(frozen=True)
class Intensity:
    """How one channel is normalised when loading. Learned from the training fold; never part of the cache.

    Attributes:
        kind: ``zscore`` uses the case's own mean and deviation over all voxels; ``zscore_nonzero`` over voxels that are
            not 0, and leaves those at 0; ``ct`` clips to ``clip`` and uses ``mean`` and ``std``; ``none`` does nothing.
    """

    kind: Literal["zscore", "zscore_nonzero", "ct", "none"]
    clip: tuple[float, float] | None = None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class Prepared:
    """A case at working spacing in RAS order, intensities not yet normalised.

    Attributes:
        case_id: the case.
        image_CDHW: float32; may be a read-only memory map. A channel that the case lacks is 0.
        labels: voxel task -> integers (D, H, W), or float32 values with NaN where none counts; only tasks for which the
            case has a file.
        grid: grid of the arrays (RAS-ordered, working spacing).
        native: grid of the case's first image as it lies in its file.
        statistics: per channel ``mean std nonzero_mean nonzero_std nonzero_fraction p005 p995 min max``; empty for one
            that the case lacks.
        foreground: voxel task -> label value -> sampled voxel indices (n, 3) int32, at most 1,000 per value. Of a map
            with a mask, value 1 stands for the voxels that count.
        sha256: file (as written in the table) -> hash of its bytes.
        notes: what was noted while its images were read, as in :class:`medmtl.data.volume.Volume`; the cache keeps
            none, because whoever trains has checked the files.
    """

    case_id: str
    image_CDHW: npt.NDArray[np.float32]
    labels: Mapping[str, npt.NDArray[Any]]
    grid: Grid
    native: Grid
    statistics: tuple[Mapping[str, float], ...]
    foreground: Mapping[str, Mapping[int, npt.NDArray[np.int32]]]
    sha256: Mapping[str, str]
    notes: tuple[tuple[str, str], ...] = ()
