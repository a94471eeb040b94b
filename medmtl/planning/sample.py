"""What one step works on: whole cases or patches, of which shape, and how many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from medmtl.config import Config
from medmtl.device import Device
from medmtl.errors import InputError, MachineError
from medmtl.networks.shape import NetworkShape
from medmtl.planning.memory import memory_bytes
from medmtl.planning.plan import Triple
from medmtl.tasks.base import Task

CPU_VOXELS = 600_000  # voxels per step at which two cores still make more than one step a second
MIN_BATCH = 2
MAX_BATCH = 16


def _round_up(shape: Sequence[int], divisor: Sequence[int]) -> Triple:
    rounded = [math.ceil(n / d) * d for n, d in zip(shape, divisor, strict=True)]
    return (rounded[0], rounded[1], rounded[2])


def plan_shape(
    config: Config,
    tasks: Mapping[str, Task],
    network: NetworkShape,
    divisor: Triple,
    whole: Triple,
    precision: str,
    budget: float,
    device: Device,
    reasons: dict[str, str],
) -> tuple[Triple, Literal["case", "patch"]]:
    """Voxels of a sample, and whether it is a whole case or a patch.

    Raises:
        InputError: if a set shape does not fit the network, or a case that must be seen whole does not fit the budget.
        MachineError: if not even the smallest patch fits the budget.
    """
    shape = _round_up(whole, divisor)
    if config.plan.shape is not None and shape != config.plan.shape:
        raise InputError(
            f"plan.shape {list(config.plan.shape)} must be divisible by {list(divisor)}; nearest: {list(shape)}"
        )
    seeing = [name for name, task in tasks.items() if not task.voxel and task.options.evidence != "anywhere"]
    smallest = 1 if seeing else MIN_BATCH
    if memory_bytes(network, shape, smallest, precision, device) <= budget:
        if config.plan.shape is None or seeing:
            reasons["shape"] = (
                "the largest case at working spacing fits the memory budget: every sample is a whole case"
            )
            return shape, "case"
        reasons["shape"] = "set in the configuration"
        return shape, "patch"
    if seeing:
        need = memory_bytes(network, shape, smallest, precision, device) / 1e9
        raise InputError(
            f"cases of {list(shape)} voxels need {need:.1f} GB for tasks that must see the whole case "
            f"({', '.join(seeing)}), and plan.memory_gb is {config.plan.memory_gb:g}. A second view is not in this "
            "version: raise plan.memory_gb, set a coarser plan.spacing, or declare evidence: anywhere where it holds"
        )
    while memory_bytes(network, shape, MIN_BATCH, precision, device) > budget:
        axis = int(np.argmax([n / d for n, d in zip(shape, divisor, strict=True)]))
        if shape[axis] <= divisor[axis]:
            raise MachineError(f"no patch fits plan.memory_gb {config.plan.memory_gb:g}; raise it or lower plan.width")
        lowered = list(shape)
        lowered[axis] -= divisor[axis]
        shape = (lowered[0], lowered[1], lowered[2])
    reasons["shape"] = "whole cases do not fit the memory budget: the largest axis was shortened until two patches do"
    return shape, "patch"


def plan_batch(
    config: Config,
    network: NetworkShape,
    shape: Triple,
    precision: str,
    budget: float,
    training_cases: int,
    device: Device,
    reasons: dict[str, str],
) -> int:
    """Samples per step: as many as fit the budget, up to a bound. ``plan.batch`` wins."""
    if config.plan.batch is not None:
        reasons["batch"] = "set in the configuration"
        return config.plan.batch
    bound = max(MIN_BATCH, CPU_VOXELS // int(np.prod(shape))) if device.kind == "cpu" else MAX_BATCH
    bound = max(1, min(bound, MAX_BATCH, training_cases))
    batch = bound
    while batch > 1 and memory_bytes(network, shape, batch, precision, device) > budget:
        batch -= 1
    reasons["batch"] = f"as many samples as fit the memory budget, at most {bound}" + (
        " (about 600,000 voxels a step on a CPU, two samples at least)" if device.kind == "cpu" else ""
    )
    return batch
