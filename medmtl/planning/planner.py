"""The plan of a fold, one decision after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from medmtl.config import Config
from medmtl.data.crop import Triple
from medmtl.data.fingerprint import Fingerprint
from medmtl.device import Device
from medmtl.errors import ConfigError, InputError, MachineError
from medmtl.planning.case_view import (
    SHARE,
    choose_kind,
    lesion_task,
    lesion_view,
    say_case_view,
    tiles_view,
    whole_view,
)
from medmtl.planning.memory import Budget
from medmtl.planning.outline import Outline, outline
from medmtl.planning.plan import CaseView, Plan
from medmtl.planning.remedy import remedy
from medmtl.planning.sample import plan_batch, plan_shape, say_padding, seeing_tasks
from medmtl.tasks.base import Task

MAX_WORKERS = 4
FEW_CORES = 2  # of a CPU training, with which loading between two steps was measured to take less time than beside one


def make_plan(
    config: Config,
    tasks: Mapping[str, Task],
    fingerprints: Sequence[Fingerprint],
    training_cases: int,
    device: Device,
    *,
    advise: bool = True,
) -> Plan:
    """Plan geometry, network and step; statistics are added by :func:`medmtl.planning.with_statistics`.

    Args:
        config: the resolved configuration.
        tasks: the unfitted tasks.
        fingerprints: of all cases but the test split.
        training_cases: number of cases in the training fold; bounds the batch.
        device: the machine.
        advise: whether a refusal says what would fit.

    Raises:
        InputError: B140 if a set shape does not fit the network; B089 if what must be seen whole, or is set, does not
            fit ``plan.memory_gb``.
        MachineError: B089 if not even the smallest patch fits ``plan.memory_gb``.
    """
    reasons = {"device": "as asked for; a CUDA device where there is one and nothing was asked"}
    drawn = outline(config, tasks, fingerprints, device, reasons)
    kind = choose_kind(config, tasks, fingerprints, drawn, reasons)
    _refuse_guides(tasks, kind)
    plan_with = partial(_if_it_fits, tasks, fingerprints, training_cases, device)
    words = partial(remedy, config, drawn=drawn, plan_with=plan_with) if advise else _no_remedy
    chosen = _choose_samples(config, tasks, fingerprints, training_cases, drawn, kind, reasons, words)
    if chosen.second is not None:
        say_case_view(chosen.second, lesion_task(config, tasks), fingerprints, reasons)
    return Plan(
        preparation=drawn.preparation(config, tasks),
        intensities=(),
        view=chosen.view,
        shape=chosen.shape,
        batch=chosen.batch,
        case_view=chosen.second,
        network=drawn.network,
        device=device.kind,
        precision=drawn.precision,
        threads=_threads(config, device, reasons),
        workers=_workers(config, device, reasons),
        steps=config.training.steps,
        minutes=config.training.minutes,
        memory_bytes=_memory(chosen.budget, chosen.shape, chosen.batch, reasons),
        seconds=_seconds(config, reasons),
        reasons=reasons,
    )


@dataclass(frozen=True)
class _Samples:
    """What a step works on: samples of the main view, those of a second one, and the memory that both share."""

    shape: Triple
    view: Literal["case", "patch"]
    batch: int
    second: CaseView | None
    budget: Budget


def _choose_samples(
    config: Config,
    tasks: Mapping[str, Task],
    fingerprints: Sequence[Fingerprint],
    training_cases: int,
    drawn: Outline,
    kind: str,
    reasons: dict[str, str],
    words: Callable[..., str],
) -> _Samples:
    second = None
    if kind in ("two", "lesion"):
        make = whole_view if kind == "two" else lesion_view
        second = make(config, tasks, fingerprints, drawn)
    budget = drawn.budget if kind == "one" else _main_budget(drawn, second)
    own = tasks if kind == "one" else {name: task for name, task in tasks.items() if name not in seeing_tasks(tasks)}
    shape, view = plan_shape(
        config, own, budget, drawn.divisor, drawn.whole, reasons, lambda need: words(tasks=own, need=need)
    )
    if kind == "tiles":
        second = tiles_view(config, tasks, drawn, shape)
        budget = _main_budget(drawn, second)
    budget = budget if view == "case" else budget.of_one_shape()
    say_padding(drawn.sizes, shape, view, reasons)
    batch = plan_batch(config, budget, shape, training_cases, reasons)
    if second is not None and not budget.fits(shape, batch):
        raise InputError(_tiles_too_large(second, budget.need(shape, batch), budget.limit_bytes), code="B089")
    return _Samples(shape, view, batch, second, budget)


def _no_remedy(**_: object) -> str:
    """What is said where the caller only asks whether a plan can be made."""
    return ""


def _if_it_fits(
    tasks: Mapping[str, Task],
    fingerprints: Sequence[Fingerprint],
    training_cases: int,
    device: Device,
    config: Config,
) -> Plan | None:
    with suppress(InputError, MachineError):
        return make_plan(config, tasks, fingerprints, training_cases, device, advise=False)
    return None


def _refuse_guides(tasks: Mapping[str, Task], kind: str) -> None:
    guided = [name for name in seeing_tasks(tasks) if tasks[name].guides] if kind != "one" else []
    if guided:
        guides = ", ".join(tasks[guided[0]].guides)
        raise ConfigError(
            f"it reads the mask of {guides} in the view of both, and views.kind {kind} gives it a "
            "view of its own; leave guided_by away, or set views.kind: one",
            key=f"tasks.{guided[0]}.guided_by",
            code="B142",
        )


def _main_budget(drawn: Outline, second: CaseView | None) -> Budget:
    """What is left beside a second view's samples; of tiles, whose shape is not known yet, a share is kept free."""
    if second is None:
        return replace(drawn.patches, beside_bytes=drawn.patches.limit_bytes // SHARE)
    return replace(drawn.patches, beside_bytes=drawn.seen.maps(second.shape, second.batch * second.tiles))


def _tiles_too_large(view: CaseView, need: int, limit: int) -> str:
    return (
        f"{view.tiles} tiles of {list(view.shape)} voxels beside the patches need {need / 1e9:.2f} GB, and "
        f"plan.memory_gb is {limit / 1e9:g}; lower views.tiles, or raise plan.memory_gb"
    )


def _threads(config: Config, device: Device, reasons: dict[str, str]) -> int:
    reasons["threads"] = "set in the configuration" if config.plan.threads else "one per core of this process"
    return config.plan.threads or device.cores


def _workers(config: Config, device: Device, reasons: dict[str, str]) -> int:
    if config.plan.workers is not None:
        reasons["workers"] = "set in the configuration"
        return config.plan.workers
    if device.kind == "cpu" and device.cores <= FEW_CORES:
        reasons["workers"] = "none: the step wants every core, and waits where one of them loads"
        return 0
    reasons["workers"] = "one loader process per two cores, at most four"
    return min(MAX_WORKERS, max(1, device.cores // 2))


def _memory(budget: Budget, shape: tuple[int, int, int], batch: int, reasons: dict[str, str]) -> int:
    where = "this GPU" if budget.device.kind == "cuda" else "the training process"
    reasons["memory"] = (
        f"predicted peak of {where}, of plan.memory_gb {budget.limit_bytes / 1e9:g}; meant to be at most a "
        "quarter too high"
    )
    return budget.need(shape, batch)


def _seconds(config: Config, reasons: dict[str, str]) -> float | None:
    if config.training.minutes is None:
        reasons["length"] = "set in the configuration"
        return None
    reasons["length"] = "set in the configuration; becomes a fixed number of steps after 20 warm ones"
    reasons["time"] = "the minutes that were given, without preparation"
    return 60 * config.training.minutes
