"""The plan of a fold, one decision after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medmtl.config import Config
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.prepared import Preparation
from medmtl.device import Device
from medmtl.planning.outline import Outline, outline
from medmtl.planning.plan import Plan
from medmtl.planning.remedy import remedy
from medmtl.planning.sample import plan_batch, plan_shape, say_padding
from medmtl.tasks.base import LabelTask, MapTask, Task

MAX_WORKERS = 4


def make_plan(
    config: Config, tasks: Mapping[str, Task], fingerprints: Sequence[Fingerprint], training_cases: int, device: Device
) -> Plan:
    """Plan geometry, network and step; statistics are added by :func:`medmtl.planning.with_statistics`.

    Args:
        config: the resolved configuration.
        tasks: the unfitted tasks.
        fingerprints: of all cases but the test split.
        training_cases: number of cases in the training fold; bounds the batch.
        device: the machine.

    Raises:
        InputError: B140 if a set shape does not fit the network; B089 if what must be seen whole, or is set, does not
            fit ``plan.memory_gb``.
        MachineError: B089 if not even the smallest patch fits ``plan.memory_gb``.
    """
    reasons = {"device": "as asked for; a CUDA device where there is one and nothing was asked"}
    drawn = outline(config, tasks, fingerprints, device, reasons)
    shape, view = plan_shape(
        config,
        tasks,
        drawn.budget,
        drawn.divisor,
        drawn.whole,
        reasons,
        lambda: remedy(config, tasks, fingerprints, device),
    )
    say_padding(drawn.sizes, shape, view, reasons)
    batch = plan_batch(config, drawn.budget, shape, training_cases, reasons)
    return Plan(
        preparation=Preparation(
            spacing=drawn.spacing,
            channels=tuple(config.cohort.channels),
            labels={name: task.columns[0] for name, task in tasks.items() if isinstance(task, LabelTask)},
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
        ),
        intensities=(),
        view=view,
        shape=shape,
        batch=batch,
        network=drawn.network,
        device=device.kind,
        precision=drawn.precision,
        threads=_threads(config, device, reasons),
        workers=_workers(config, device, reasons),
        steps=config.training.steps,
        minutes=config.training.minutes,
        memory_bytes=_memory(drawn, shape, batch, reasons),
        seconds=_seconds(config, reasons),
        reasons=reasons,
    )


def _threads(config: Config, device: Device, reasons: dict[str, str]) -> int:
    reasons["threads"] = "set in the configuration" if config.plan.threads else "one per core of this process"
    return config.plan.threads or device.cores


def _workers(config: Config, device: Device, reasons: dict[str, str]) -> int:
    if config.plan.workers is not None:
        reasons["workers"] = "set in the configuration"
        return config.plan.workers
    reasons["workers"] = "one loader process per two cores, at most four"
    return min(MAX_WORKERS, max(1, device.cores // 2))


def _memory(drawn: Outline, shape: tuple[int, int, int], batch: int, reasons: dict[str, str]) -> int:
    where = "this GPU" if drawn.budget.device.kind == "cuda" else "the training process"
    reasons["memory"] = (
        f"predicted peak of {where}, of plan.memory_gb {drawn.budget.limit_bytes / 1e9:g}; meant to be at most a "
        "quarter too high"
    )
    return drawn.budget.need(shape, batch)


def _seconds(config: Config, reasons: dict[str, str]) -> float | None:
    if config.training.minutes is None:
        reasons["length"] = "set in the configuration"
        return None
    reasons["length"] = "set in the configuration; becomes a fixed number of steps after 20 warm ones"
    reasons["time"] = "the minutes that were given, without preparation"
    return 60 * config.training.minutes
