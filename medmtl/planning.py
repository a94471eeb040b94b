"""Everything that is decided before the first step, with its reason.

Geometry is planned from all cases but the test split; statistics of intensities and targets come from the training
fold. The plan is frozen in ``plan.json``; training, resume, evaluation and prediction read it and decide nothing again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.config import Config
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.prepared import Intensity, Preparation
from medmtl.data.volume import Grid
from medmtl.device import Device, memory_bytes
from medmtl.errors import ArtefactError, ConfigError, InputError, MachineError
from medmtl.networks.shape import NetworkShape, pooling_plan
from medmtl.tasks.base import Task

Triple = tuple[int, int, int]

MAX_STAGES = 6
CPU_VOXELS = 600_000  # voxels per step at which two cores still make more than one step a second
MIN_BATCH = 2
MAX_BATCH = 16
CT_AIR = -500.0  # Hounsfield units: no MR or normalised scan has a typical minimum below
MASKED_SHARE = 0.25  # share of exact zeros from which a scan counts as masked, as in nnU-Net's cropping rule


@dataclass(frozen=True)
class Plan:
    """The frozen plan of one fold.

    Attributes:
        preparation: the deterministic half of the transforms; part of the cache key.
        intensities: normalisation per channel, in input order.
        view: ``case`` (every sample is a whole case) or ``patch``.
        shape: samples' voxels per axis.
        batch, network, precision, threads, workers, device: of the training step.
        steps: optimiser steps; None while ``minutes`` has not yet been turned into steps.
        minutes: as configured, or None.
        tasks: per task what it learned from the training fold.
        training_range: what the training fold spans, by name; see :func:`observed_range`.
        memory_bytes: predicted peak resident memory of training.
        reasons: planned value -> one sentence.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    preparation: Preparation
    intensities: tuple[Intensity, ...]
    view: Literal["case", "patch"]
    shape: Triple
    batch: int
    network: NetworkShape
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int
    workers: int
    steps: int | None
    minutes: float | None
    memory_bytes: int
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    training_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As written to ``plan.json``."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Any) -> Plan:
        """Read ``plan.json`` strictly.

        Raises:
            ArtefactError: on missing, unknown or ill-typed entries.
        """
        try:
            return TypeAdapter(Plan).validate_python(data)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise ArtefactError(f"plan.json was refused at {place}: {error.errors()[0]['msg']}") from None


class CaseFacts(Protocol):
    """The part of :class:`medmtl.data.prepared.Prepared` that planning reads."""

    @property
    def native(self) -> Grid:
        """Grid of the file."""

    @property
    def statistics(self) -> tuple[Mapping[str, float], ...]:
        """Per channel."""


@dataclass(frozen=True)
class TrainingFacts:
    """What statistics may be learned from: the training fold and nothing else.

    Attributes:
        prepared: the fold's cases.
        truths: task -> targets of the fold's labelled cases.
    """

    prepared: Sequence[CaseFacts]
    truths: Mapping[str, Sequence[Any]]


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
    spacing = working_spacing(config, fingerprints, reasons)
    network, divisor, whole = _network(config, spacing, fingerprints, device, reasons)
    precision = _precision(config, device, reasons)
    budget = config.plan.memory_gb * 1e9
    shape, view = _shape(config, tasks, network, divisor, whole, precision, budget, device, reasons)
    batch = _batch(config, network, shape, precision, budget, training_cases, device, reasons)
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


def with_statistics(plan: Plan, config: Config, tasks: Mapping[str, Task], training: TrainingFacts) -> Plan:
    """The plan completed by what is learned from the training fold.

    Args:
        plan: of :func:`make_plan`.
        config: the resolved configuration.
        tasks: the unfitted tasks.
        training: facts of the training fold's cases only.
    """
    reasons = dict(plan.reasons)
    intensities = tuple(
        _intensity(channel, index, config, training.prepared, reasons)
        for index, channel in enumerate(plan.preparation.channels)
    )
    fitted = {name: {**task.fit(training.truths[name]), **task.resolve(tasks)} for name, task in tasks.items()}
    seen: dict[str, list[float]] = {}
    for prepared in training.prepared:
        for name, value in observed_range(prepared, plan.preparation.channels).items():
            seen.setdefault(name, []).append(value)
    return replace(
        plan,
        intensities=intensities,
        tasks=fitted,
        training_range={name: (min(values), max(values)) for name, values in seen.items()},
        reasons=reasons,
    )


def observed_range(prepared: CaseFacts, channels: Sequence[str]) -> dict[str, float]:
    """What is compared with the training range: native voxel size per axis and each channel's 99.5th percentile."""
    sizes = dict(zip(("spacing_0", "spacing_1", "spacing_2"), sorted(prepared.native.spacing), strict=True))
    return {**sizes, **{f"intensity_{c}": float(s["p995"]) for c, s in zip(channels, prepared.statistics, strict=True)}}


def _intensity(
    channel: str, index: int, config: Config, cases: Sequence[CaseFacts], reasons: dict[str, str]
) -> Intensity:
    statistics = [case.statistics[index] for case in cases]
    kind = config.plan.normalisation.get(channel)
    reason = "set in the configuration"
    if kind is None:
        lowest = float(np.median([s["min"] for s in statistics]))
        background = float(np.median([1 - s["nonzero_fraction"] for s in statistics]))
        if lowest <= CT_AIR:
            kind, reason = "ct", f"the median minimum is {lowest:g}, as in Hounsfield units"
        elif background >= MASKED_SHARE:
            kind, reason = "zscore_nonzero", f"{background:.0%} of the voxels are 0: the scan is masked"
        else:
            kind, reason = (
                "zscore",
                "no Hounsfield units and no masked background: each scan by its own mean and deviation",
            )
    reasons[f"normalisation.{channel}"] = reason
    if kind != "ct":
        return Intensity(kind)
    return Intensity(
        kind,
        clip=(float(np.median([s["p005"] for s in statistics])), float(np.median([s["p995"] for s in statistics]))),
        mean=float(np.mean([s["mean"] for s in statistics])),
        std=float(np.sqrt(np.mean([s["std"] ** 2 for s in statistics]))),
    )


def working_spacing(
    config: Config, fingerprints: Sequence[Fingerprint], reasons: dict[str, str]
) -> tuple[float, float, float]:
    """Voxel size in mm at which the cases are trained on, per axis of the RAS-ordered array.

    Args:
        config: may set it.
        fingerprints: of one case or more.
        reasons: gets the reason.
    """
    if config.plan.spacing is not None:
        reasons["spacing"] = "set in the configuration"
        return config.plan.spacing
    spacings = np.array([fingerprint.grid.spacing for fingerprint in fingerprints])
    sizes = np.median([fingerprint.grid.shape for fingerprint in fingerprints], axis=0)
    median = np.median(spacings, axis=0)
    coarse = int(np.argmax(median))
    others = [axis for axis in range(3) if axis != coarse]
    reasons["spacing"] = "median voxel size of the cohort"
    if median[coarse] > 3 * median[others].max() and 3 * sizes[coarse] < sizes[others].min():
        median[coarse] = max(float(np.percentile(spacings[:, coarse], 10)), float(median[others].max()))
        reasons["spacing"] = (
            "median voxel size; the anisotropic axis takes the 10th percentile, so that thin slices are kept"
        )
    return (round(float(median[0]), 4), round(float(median[1]), 4), round(float(median[2]), 4))


def _network(
    config: Config,
    spacing: tuple[float, float, float],
    fingerprints: Sequence[Fingerprint],
    device: Device,
    reasons: dict[str, str],
) -> tuple[NetworkShape, Triple, Triple]:
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


def _precision(config: Config, device: Device, reasons: dict[str, str]) -> Literal["fp32", "bf16", "fp16"]:
    if config.plan.precision == "fp16" and device.kind == "cpu":
        message = "fp16 is for CUDA devices; use fp32 or bf16, or leave it to the planner"
        raise ConfigError(message, key="plan.precision", code="B142")
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


def _round_up(shape: Sequence[int], divisor: Sequence[int]) -> Triple:
    rounded = [math.ceil(n / d) * d for n, d in zip(shape, divisor, strict=True)]
    return (rounded[0], rounded[1], rounded[2])


def _shape(
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
    shape = _round_up(whole, divisor)
    if config.plan.shape is not None and shape != config.plan.shape:
        raise InputError(
            f"plan.shape {list(config.plan.shape)} must be divisible by {list(divisor)}; nearest: {list(shape)}",
            code="B140",
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


def _batch(
    config: Config,
    network: NetworkShape,
    shape: Triple,
    precision: str,
    budget: float,
    training_cases: int,
    device: Device,
    reasons: dict[str, str],
) -> int:
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
