"""What follows from voxel size and the largest case: the network, and what its samples cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medmtl.config import Config
from medmtl.data.crop import Triple, round_up, whole_shape
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.prepared import Preparation
from medmtl.device import Device, Precision
from medmtl.networks.shape import NetworkShape
from medmtl.planning.memory import Budget
from medmtl.planning.network import (
    output_count,
    plan_network,
    plan_precision,
    plan_towers,
    towers_by_view,
    working_sizes,
)
from medmtl.planning.sample import seeing_tasks
from medmtl.planning.spacing import plan_spacing
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask


@dataclass(frozen=True)
class Outline:
    """A plan before its samples are chosen.

    Attributes:
        spacing: working voxel size in mm.
        sizes: voxels of each case at that size.
        whole: voxels of the largest case per axis, or the set shape.
        network: the network.
        precision: of the arithmetic.
        budget: of memory, where all tasks see the same samples.
        patches, seen: the same where case tasks have a view of their own: of the others' samples, and of theirs.
    """

    spacing: tuple[float, float, float]
    sizes: tuple[Triple, ...]
    whole: Triple
    network: NetworkShape
    precision: Precision
    budget: Budget
    patches: Budget
    seen: Budget

    @property
    def divisor(self) -> Triple:
        """What the network divides a sample's axes by."""
        return self.network.divisor

    def preparation(self, config: Config, tasks: Mapping[str, Task]) -> Preparation:
        """The deterministic half of the transforms at this spacing."""
        return Preparation(
            spacing=self.spacing,
            channels=tuple(config.cohort.channels),
            labels={name: task.columns[0] for name, task in tasks.items() if isinstance(task, LabelTask | BoxTask)},
            resample_to_first=config.cohort.resample == "to_first",
            ignored={
                name: value
                for name, task in tasks.items()
                if isinstance(task, LabelTask) and (value := task.ignored_value) is not None
            },
            maps={
                name: (task.columns[0], task.mask_column) for name, task in tasks.items() if isinstance(task, MapTask)
            },
            optional=config.cohort.optional,
            boxes={
                name: task.frame for name, task in tasks.items() if isinstance(task, BoxTask) and task.frame is not None
            },
        )


def outline(
    config: Config,
    tasks: Mapping[str, Task],
    fingerprints: Sequence[Fingerprint],
    device: Device,
    reasons: dict[str, str],
) -> Outline:
    """Everything up to the choice of samples.

    Args:
        config: the resolved configuration.
        tasks: the unfitted tasks.
        fingerprints: of all cases but the test split.
        device: the machine.
        reasons: gets the reasons.
    """
    spacing = plan_spacing(config, fingerprints, reasons)
    sizes = working_sizes(fingerprints, spacing)
    whole = config.plan.shape or (max(s[0] for s in sizes), max(s[1] for s in sizes), max(s[2] for s in sizes))
    network = plan_network(config, spacing, whole, device, reasons)
    precision = plan_precision(config, device, reasons)
    towers = plan_towers(config, tasks, network)
    limit = round(config.plan.memory_gb * 1e9)
    held = {whole_shape([size], round_up(whole, network.divisor), network.divisor) for size in sizes}
    varied = sum(len(set(axis)) > 1 for axis in zip(*held, strict=True))
    budget = Budget(network, towers, output_count(tasks), precision, device, limit, varied)
    first, second, built = towers_by_view(config, tasks, network, seeing_tasks(tasks))
    patches = replace(budget, towers=first, built=built)
    seen = replace(budget, towers=second, outputs=0, built=built)
    return Outline(spacing, sizes, whole, network, precision, budget, patches, seen)
