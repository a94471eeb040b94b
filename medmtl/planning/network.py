"""The network and its arithmetic, from voxel size and the largest case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from medmtl.config import Config
from medmtl.data.fingerprint import Fingerprint
from medmtl.device import Device
from medmtl.networks.shape import NetworkShape, pooling_plan
from medmtl.planning.plan import Triple

MAX_STAGES = 6


def plan_network(
    config: Config,
    spacing: tuple[float, float, float],
    fingerprints: Sequence[Fingerprint],
    device: Device,
    reasons: dict[str, str],
) -> tuple[NetworkShape, Triple, Triple]:
    """The network's measurements, the divisor of a sample's shape, and the voxels of the largest case.

    Args:
        config: the resolved configuration; ``plan.shape``, ``plan.width`` and ``plan.max_width`` win.
        spacing: working voxel size in mm.
        fingerprints: of all cases but the test split.
        device: the machine; a CPU gets half the width.
        reasons: gets the reason.
    """
    sizes = [
        [math.ceil(round(n * s / w, 3)) for n, s, w in zip(f.grid.shape, f.grid.spacing, spacing, strict=True)]
        for f in fingerprints
    ]
    largest = np.max(sizes, axis=0)
    whole = config.plan.shape or (int(largest[0]), int(largest[1]), int(largest[2]))
    strides, kernels, divisor = pooling_plan(whole, spacing, MAX_STAGES)
    width = config.plan.width or (16 if device.kind == "cpu" else 32)
    widest = config.plan.max_width or (128 if device.kind == "cpu" else 320)
    reasons["network"] = (
        f"axes are halved while they keep 4 voxels and their spacing is within twice the finest; {width} channels, "
        f"doubled per stage up to {widest}: what a {device.kind} trains in minutes"
    )
    network = NetworkShape(
        in_channels=len(config.cohort.channels),
        channels=tuple(min(width * 2**stage, widest) for stage in range(len(strides))),
        kernels=kernels,
        strides=strides,
        blocks=config.network.blocks,
        levels=min(3, len(strides) - 1) if config.network.deep_supervision else 1,
    )
    return network, divisor, whole


def plan_precision(config: Config, device: Device, reasons: dict[str, str]) -> Literal["fp32", "bf16", "fp16"]:
    """bf16 where the device has it; otherwise fp16 on a GPU and fp32 on a CPU. ``plan.precision`` wins."""
    if config.plan.precision is not None:
        reasons["precision"] = "set in the configuration"
        return config.plan.precision
    if device.bf16:
        reasons["precision"] = f"this {device.kind} computes in bfloat16; losses and metrics stay in fp32"
        return "bf16"
    if device.kind == "cuda":
        reasons["precision"] = "this GPU has no bfloat16; fp16 with a gradient scaler"
        return "fp16"
    reasons["precision"] = "this processor has no bfloat16"
    return "fp32"
