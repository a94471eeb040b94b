"""What planning needs to know of a case, taken while it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medmtl.data.volume import Grid


@dataclass(frozen=True)
class ChannelFingerprint:
    """Intensities of one channel of one case."""

    minimum: float
    maximum: float
    zero_fraction: float


@dataclass(frozen=True)
class Fingerprint:
    """One case as seen by the check.

    Attributes:
        grid: RAS-ordered grid of the first channel.
        channels: per channel name.
        label_counts: voxel task -> label value -> voxels, for labelled tasks.
    """

    grid: Grid
    channels: Mapping[str, ChannelFingerprint]
    label_counts: Mapping[str, Mapping[int, int]]
