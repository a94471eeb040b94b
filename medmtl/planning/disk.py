"""The disk space that a run will take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

ENTRY_BYTES = 64_000  # of a prepared case, beside its arrays: the record, and up to 1,000 voxel indices per label
OVERHEAD_BYTES = 1_000_000  # of a checkpoint, beside its tensors: headers, state, and the heads
MOMENTS = 2  # of AdamW


def checkpoint_bytes(parameters: int, *, average: bool) -> int:
    """Bytes of one commit: weights, AdamW's two moments and, where it is on, the averaged weights, all fp32.

    Args:
        parameters: of the network; see :func:`medmtl.networks.cost.parameter_count`.
        average: whether weights are averaged.
    """
    return 4 * parameters * (1 + MOMENTS + average) + OVERHEAD_BYTES


def cache_bytes(sizes: Iterable[Sequence[int]], channels: int, largest_labels: Sequence[int]) -> int:
    """Bytes of the prepared cases, as if each had every label.

    Args:
        sizes: voxels of each case at working spacing.
        channels: images per case, fp32.
        largest_labels: the largest label value of each voxel task; it decides between one, two and four bytes a voxel.
    """
    per_voxel = 4 * channels + sum(1 if value < 1 << 8 else 2 if value < 1 << 16 else 4 for value in largest_labels)
    return sum(math.prod(size) * per_voxel + ENTRY_BYTES for size in sizes)


def run_bytes(checkpoint: int, keep: int, cache: int) -> int:
    """Bytes that must be free before a run: a commit is written beside the kept ones before the oldest goes."""
    return checkpoint * (keep + 1) + cache
