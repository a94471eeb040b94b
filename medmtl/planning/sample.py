"""What one step works on: whole cases or patches, of which shape, and how many."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from medmtl.config import Config
from medmtl.data.crop import Triple, norms_hold, round_up
from medmtl.errors import InputError, MachineError
from medmtl.planning.memory import Budget
from medmtl.tasks.base import Task

CPU_VOXELS = 600_000  # voxels per step at which two cores still make more than one step a second
MOST_WHOLE = 2  # times that many voxels of one case: beyond, a CPU's steps over whole cases are too few to learn from
MIN_BATCH = 2
MAX_BATCH = 16


def seeing_tasks(tasks: Mapping[str, Task]) -> list[str]:
    """Tasks that must see the whole case."""
    return [
        name
        for name, task in tasks.items()
        if not task.voxel and task.reads_image and task.options.evidence != "anywhere"
    ]


def smallest_batch(config: Config, tasks: Mapping[str, Task]) -> int:
    """The fewest samples that a step may have: as set, else one whole case, else two patches."""
    return config.plan.batch or (1 if seeing_tasks(tasks) else MIN_BATCH)


def why_not_whole(budget: Budget, shape: Triple, batch: int) -> str | None:
    """What speaks against whole cases as samples: the memory, or on a CPU the time of a step. None if nothing does.

    Args:
        budget: of memory.
        shape: voxels of the largest case.
        batch: the fewest samples of a step.
    """
    if not budget.fits(shape, batch):
        return "whole cases do not fit the memory budget"
    if budget.device.kind == "cpu" and math.prod(shape) > MOST_WHOLE * CPU_VOXELS:
        return "a step over whole cases would take a CPU many seconds"
    return None


def plan_shape(
    config: Config,
    tasks: Mapping[str, Task],
    budget: Budget,
    divisor: Triple,
    whole: Triple,
    reasons: dict[str, str],
    remedy: Callable[[int], str],
) -> tuple[Triple, Literal["case", "patch"]]:
    """Voxels of a sample, and whether it is a whole case or a patch.

    Args:
        config: the resolved configuration; ``plan.shape`` wins.
        tasks: the unfitted tasks.
        budget: of memory.
        divisor: what the network divides a sample's axes by.
        whole: voxels of the largest case, or the set shape.
        reasons: gets the reason.
        remedy: what would fit instead of what takes so many bytes, in words; asked only where that does not.

    Raises:
        InputError: B140 if a set shape, or what the set strides leave of a sample, does not fit the network; B089 if a
            set shape or batch, or a case that must be seen whole, does not fit the budget.
        MachineError: B089 if not even the smallest patch fits the budget.
    """
    shape = round_up(whole, divisor)
    _refuse_misfit(config, shape, divisor)
    seeing, batch = seeing_tasks(tasks), smallest_batch(config, tasks)
    fixed = bool(seeing) or config.plan.shape is not None
    if fixed and not seeing:
        budget = budget.of_one_shape()
    if fixed and not budget.fits(shape, batch):
        raise InputError(_too_large(budget, shape, batch, seeing) + remedy(budget.need(shape, batch)), code="B089")
    why = None if fixed else why_not_whole(budget, shape, batch)
    if why is None:
        return shape, _chosen(config, bool(seeing), reasons)
    budget = budget.of_one_shape()
    most = CPU_VOXELS // batch if budget.device.kind == "cpu" else math.inf
    shape = _shortened(shape, divisor, budget, batch, most)
    held = ", and hold no more voxels than a CPU steps through in a second or so" if most < math.inf else ""
    if math.prod(shape) > most:
        held = ", and no shorter patch has two voxels at the network's deepest stage"
    reasons["shape"] = f"{why}: the largest axis was shortened until {batch} patches fit the memory budget{held}"
    reasons["view"] = "no task must see the whole case"
    return shape, "patch"


def _refuse_misfit(config: Config, shape: Triple, divisor: Triple) -> None:
    """Refuse a set shape that is no multiple of the divisor, and samples whose deepest map is a single voxel."""
    wanted = config.plan.shape
    if wanted is not None and shape != wanted:
        if not norms_hold(shape, divisor):
            shape = (2 * shape[0], shape[1], shape[2])
        raise InputError(
            f"plan.shape {list(wanted)} must be divisible by {list(divisor)}; nearest: {list(shape)}", code="B140"
        )
    if not norms_hold(shape, divisor):
        ways = {"shape": "a larger plan.shape", "strides": "fewer halvings in plan.strides and plan.kernels"}
        fitting = [words for key, words in ways.items() if getattr(config.plan, key) is not None]
        raise InputError(
            f"a sample of {list(shape)} voxels, divided by {list(divisor)}, is a single voxel at the network's deepest "
            f"stage, and a norm wants two; set {' or '.join(fitting or ['a finer plan.spacing'])}",
            code="B140",
        )


def _shortened(shape: Triple, divisor: Triple, budget: Budget, batch: int, most: float) -> Triple:
    """The shape with its largest axis shortened until it fits, or as far as the network's norms allow.

    Raises:
        MachineError: B089 if not even the smallest fits the budget.
    """
    while not budget.fits(shape, batch) or math.prod(shape) > most:
        axis = int(np.argmax([n / d for n, d in zip(shape, divisor, strict=True)]))
        x, y, z = (n - divisor[i] if i == axis else n for i, n in enumerate(shape))
        if norms_hold((x, y, z), divisor):
            shape = (x, y, z)
        elif budget.fits(shape, batch):
            break
        else:
            raise MachineError(
                f"no patch fits plan.memory_gb {budget.limit_bytes / 1e9:g}: the smallest, {batch} of {list(shape)} "
                f"voxels, needs {_gigabytes(budget.need(shape, batch))} GB; raise it or lower plan.width",
                code="B089",
            )
    return shape


def plan_batch(config: Config, budget: Budget, shape: Triple, training_cases: int, reasons: dict[str, str]) -> int:
    """Samples per step: as many as fit the budget, up to a bound. ``plan.batch`` wins.

    Args:
        config: the resolved configuration.
        budget: of memory.
        shape: voxels of a sample.
        training_cases: number of cases in the training fold; bounds the batch.
        reasons: gets the reason.
    """
    if config.plan.batch is not None:
        reasons["batch"] = config.plan.reason("batch")
        return config.plan.batch
    cpu = budget.device.kind == "cpu"
    bound = max(MIN_BATCH, CPU_VOXELS // math.prod(shape)) if cpu else MAX_BATCH
    bound = max(1, min(bound, MAX_BATCH, training_cases))
    batch = budget.largest_batch(shape, bound)
    reasons["batch"] = f"as many samples as fit the memory budget, at most {bound}" + (
        " (about 600,000 voxels a step on a CPU, two samples at least)" if cpu else ""
    )
    return batch


def say_padding(
    sizes: Sequence[Sequence[int]], shape: Triple, view: Literal["case", "patch"], reasons: dict[str, str]
) -> None:
    """Tell how many cases do not fill a sample, and how many whole cases are cut.

    Args:
        sizes: voxels of each case at working spacing.
        shape: voxels of a sample.
        view: of the plan.
        reasons: gets what is told.
    """
    smaller = sum(any(n < m for n, m in zip(size, shape, strict=True)) for size in sizes)
    if smaller:
        reasons["padding"] = (
            f"{smaller} of {len(sizes)} cases are smaller than a sample on some axis; around them is 0, which is the "
            "mean after normalisation and the background of a label"
        )
    larger = sum(any(n > m for n, m in zip(size, shape, strict=True)) for size in sizes)
    if larger and view == "case":
        reasons["shape"] += f"; {larger} of {len(sizes)} cases are larger, and training sees their centre only"


def _chosen(config: Config, seeing: bool, reasons: dict[str, str]) -> Literal["case", "patch"]:
    if config.plan.shape is None:
        reasons["shape"] = (
            "the largest case at working spacing fits the memory budget: every sample is a whole case, and a step's "
            "samples are only as large as its cases"
        )
    else:
        reasons["shape"] = config.plan.reason("shape")
    if config.plan.shape is None or seeing:
        reasons["view"] = "a task must see the whole case" if seeing else "whole cases are small enough"
        return "case"
    reasons["view"] = "a shape was set, and no task must see the whole case"
    return "patch"


def _too_large(budget: Budget, shape: Triple, batch: int, seeing: Sequence[str]) -> str:
    why = f", for tasks that must see the whole case ({', '.join(seeing)})," if seeing else ""
    return (
        f"{batch} x {list(shape)} voxels{why} need {_gigabytes(budget.need(shape, batch))} GB, and "
        f"plan.memory_gb is {budget.limit_bytes / 1e9:g}"
    )


def _gigabytes(amount: int) -> str:
    return f"{math.ceil(amount / 1e7) / 100:.2f}"
