"""What planning needs to know of a case, taken while it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medmtl.data.volume import Grid


@dataclass(frozen=True)
class ChannelFingerprint:
    """Intensities of one channel of one case."""

    minimum: float
    maximum: float


@dataclass(frozen=True)
class Fingerprint:
    """One case as seen by the check.

    Attributes:
        grid: RAS-ordered grid of the first channel.
        channels: per channel name.
        label_counts: voxel task -> label value -> voxels, for labelled tasks.
        label_places: voxel task -> label value but 0 -> indices on ``grid`` of some of its voxels (3, n), evenly drawn.
        map_quantiles: map task -> quantiles of the values that count, evenly spaced from the lowest to the highest; for
            labelled tasks.
        box_sizes_mm: box task -> sizes (n, 3) of its lesions along the axes of ``grid``, for labelled tasks.
        orientation: of the first channel as it lies in its file, such as ``LPS``.
    """

    grid: Grid
    channels: Mapping[str, ChannelFingerprint]
    label_counts: Mapping[str, Mapping[int, int]]
    label_places: Mapping[str, Mapping[int, npt.NDArray[np.int32]]] = field(default_factory=dict)
    orientation: str = "RAS"
    map_quantiles: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    box_sizes_mm: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
