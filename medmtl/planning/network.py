"""The network and its arithmetic, from voxel size and the largest case."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from medmtl import sharing, weighting
from medmtl.config import Config
from medmtl.data.crop import Triple
from medmtl.data.fingerprint import Fingerprint
from medmtl.device import Device, Precision
from medmtl.errors import ConfigError
from medmtl.networks.cost import Towers
from medmtl.networks.shape import NetworkShape, pooling_plan
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import VoxelTask

MAX_STAGES = 6


def working_sizes(fingerprints: Sequence[Fingerprint], spacing: tuple[float, float, float]) -> tuple[Triple, ...]:
    """Voxels of each case at a voxel size."""
    sizes = []
    for grid in (fingerprint.grid for fingerprint in fingerprints):
        x, y, z = (
            math.ceil(round(n * own / size, 3)) for n, own, size in zip(grid.shape, grid.spacing, spacing, strict=True)
        )
        sizes.append((x, y, z))
    return tuple(sizes)


def plan_network(
    config: Config, spacing: tuple[float, float, float], whole: Triple, device: Device, reasons: dict[str, str]
) -> NetworkShape:
    """The network's measurements.

    Args:
        config: the resolved configuration; its ``plan.width``, ``max_width``, ``strides``, ``kernels`` and
            ``channels`` win.
        spacing: working voxel size in mm.
        whole: voxels of the largest case, or the set shape.
        device: the machine; a CPU gets half the width.
        reasons: gets the reason.
    """
    strides, kernels, widths = _stages(config, spacing, whole, device, reasons)
    shape = NetworkShape(
        in_channels=len(config.cohort.channels) + len(config.cohort.optional),  # each of these has an indicator
        channels=widths,
        kernels=kernels,
        strides=strides,
        # the deepest map is supervised only where it is the only one
        levels=max(1, min(3, len(strides) - 1)) if config.network.deep_supervision else 1,
    )
    network = config.network.measured(shape)
    if network.blocks_per_stage:
        reasons["network"] += f"; {network.kind} has {list(network.blocks_per_stage)} blocks in its stages"
    origin = f"{config.plan.reason('strides')}; " if config.plan.strides else ""
    reasons["strides"] = f"{origin}a sample's axes are multiples of {list(network.divisor)}"
    return network


def _stages(
    config: Config, spacing: Sequence[float], whole: Triple, device: Device, reasons: dict[str, str]
) -> tuple[tuple[Triple, ...], tuple[Triple, ...], tuple[int, ...]]:
    """Strides, kernels and channels of every stage; those that are set win.

    Raises:
        ConfigError: B142 if the channels that are set are not those of every stage.
    """
    strides, kernels = pooling_plan(whole, spacing, MAX_STAGES)
    measured = "the set shape" if config.plan.shape else "the largest case"
    reason = f"axes of {measured} are halved while they keep 4 voxels and their spacing is within twice the finest; "
    if config.plan.strides is not None and config.plan.kernels is not None:
        strides, kernels, reason = config.plan.strides, config.plan.kernels, ""
    width = config.plan.width or (16 if device.kind == "cpu" else 32)
    widest = config.plan.max_width or max(width, 128 if device.kind == "cpu" else 320)
    width = min(width, widest)
    if config.plan.channels is None:
        widths = tuple(min(width * 2**stage, widest) for stage in range(len(strides)))
        many = f"{width} channels, doubled per stage up to {widest}: what a {device.kind} trains in minutes"
    elif len(config.plan.channels) == len(strides):
        widths, many = config.plan.channels, f"channels {config.plan.reason('channels')}"
    else:
        raise ConfigError(
            f"it has {len(config.plan.channels)} stages, and {len(strides)} were planned; set plan.strides and "
            "plan.kernels too, or plan.width instead",
            key="plan.channels",
            code="B142",
        )
    reasons["network"] = reason + many
    return strides, kernels, widths


def plan_towers(
    config: Config, tasks: Mapping[str, Task], network: NetworkShape, seeing: Collection[str] | None = None
) -> Towers:
    """How often the parts of the network stand there, by the kind of sharing.

    Args:
        config: the resolved configuration.
        tasks: of the network; those that read no image do not count.
        network: its measurements.
        seeing: the tasks of one view, of which what a pass for them runs is meant; None for the whole network.

    Raises:
        ConfigError: B142 if the kind cannot share a network of this many stages as its options say.
    """
    voxel = {name: task.voxel for name, task in tasks.items() if task.reads_image}
    kind = sharing.kinds.get(config.sharing.kind)
    try:
        if seeing is not None:
            return kind.towers_run(config.sharing, network, config.network, voxel, seeing)
        return kind.towers(config.sharing, network, config.network, voxel)
    except ValueError as error:
        raise ConfigError(str(error), key="sharing", code="B142") from None


def towers_by_view(
    config: Config, tasks: Mapping[str, Task], network: NetworkShape, second: Collection[str]
) -> tuple[Towers, Towers, tuple[Towers, ...]]:
    """What a step runs for each of two views, and what stands there for both.

    Args:
        config: the resolved configuration; ``views.share`` says whether there is one network or two.
        tasks: all of the configuration.
        network: measurements of the network.
        second: case tasks with a view of their own.

    Returns:
        What the others' samples run, or all where nobody else sees the image; what the second view's samples run; and
        the one or two networks.
    """
    own = {name: task for name, task in tasks.items() if name in second}
    others = {name: task for name, task in tasks.items() if name not in second and task.reads_image} or own
    if config.views.share or others is own:
        first, seen = (plan_towers(config, tasks, network, part) for part in (others, own))
        built: tuple[Towers, ...] = (plan_towers(config, tasks, network),)
    else:
        first, seen = (plan_towers(config, part, network) for part in (others, own))
        built = (first, seen)
    return first, seen.without_decoders(), built


def output_count(tasks: Mapping[str, Task]) -> int:
    """Channels of all voxel tasks' outputs together."""
    return sum(task.channels for task in tasks.values() if isinstance(task, VoxelTask | BoxTask))


def plan_precision(config: Config, device: Device, reasons: dict[str, str]) -> Precision:
    """bf16 where the device has it; otherwise fp16 on a GPU and fp32 on a CPU. ``plan.precision`` wins.

    A weighting on gradients gets fp32 for fp16, whose scaler would multiply what it compares.

    Raises:
        ConfigError: B142 for fp16 on a CPU.
    """
    if config.plan.precision == "fp16" and device.kind == "cpu":
        message = "fp16 is for CUDA devices; use fp32 or bf16, or leave it to the planner"
        raise ConfigError(message, key="plan.precision", code="B142")
    if config.plan.precision is not None:
        reasons["precision"] = "set in the configuration"
        return config.plan.precision
    if device.bf16:
        reasons["precision"] = f"this {device.kind} computes in bfloat16; losses and metrics stay in fp32"
        return "bf16"
    if weighting.kinds.get(config.weighting.kind).needs == "gradients":
        reasons["precision"] = (
            f"this {device.kind} has no bfloat16, and weighting.kind {config.weighting.kind!r} works on gradients, "
            "which fp16 would scale"
        )
        return "fp32"
    if device.kind == "cuda":
        reasons["precision"] = "this GPU has no bfloat16; fp16 with a gradient scaler"
        return "fp16"
    reasons["precision"] = "this processor has no bfloat16"
    return "fp32"
