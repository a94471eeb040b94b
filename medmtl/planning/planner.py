"""The plan of a fold, one decision after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medmtl.config import Config
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.prepared import Preparation
from medmtl.device import Device
from medmtl.planning.memory import memory_bytes
from medmtl.planning.network import plan_network, plan_precision
from medmtl.planning.plan import Plan
from medmtl.planning.sample import plan_batch, plan_shape
from medmtl.planning.spacing import plan_spacing
from medmtl.tasks.base import Task


def make_plan(
    config: Config, tasks: Mapping[str, Task], fingerprints: Sequence[Fingerprint], training_cases: int, device: Device
) -> Plan:
    """Plan geometry, network and step; statistics are added by :func:`with_statistics`.

    Args:
        config: the resolved configuration.
        tasks: the unfitted tasks.
        fingerprints: of all cases but the test split.
        training_cases: number of cases in the training fold; bounds the batch.
        device: the machine.

    Raises:
        InputError: if the cohort needs two views, which this version does not have.
        MachineError: if not even the smallest step fits ``plan.memory_gb``.
    """
    reasons: dict[str, str] = {}
    spacing = plan_spacing(config, fingerprints, reasons)
    network, divisor, whole = plan_network(config, spacing, fingerprints, device, reasons)
    precision = plan_precision(config, device, reasons)
    budget = config.plan.memory_gb * 1e9
    shape, view = plan_shape(config, tasks, network, divisor, whole, precision, budget, device, reasons)
    batch = plan_batch(config, network, shape, precision, budget, training_cases, device, reasons)
    threads = config.plan.threads or device.cores
    workers = config.plan.workers if config.plan.workers is not None else min(4, max(1, device.cores // 2))
    reasons["workers"] = "one loader process per two cores, at most four"
    return Plan(
        preparation=Preparation(
            spacing=spacing,
            channels=tuple(config.cohort.channels),
            labels={name: task.columns[0] for name, task in tasks.items() if task.voxel},
            resample_to_first=config.cohort.resample == "to_first",
        ),
        intensities=(),
        view=view,
        shape=shape,
        batch=batch,
        network=network,
        device=device.kind,
        precision=precision,
        threads=threads,
        workers=workers,
        steps=config.training.steps,
        minutes=config.training.minutes,
        memory_bytes=memory_bytes(network, shape, batch, precision, device),
        reasons=reasons,
    )
