"""The record that a run freezes in ``plan.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.data.covariates import Covariate
from medmtl.data.crop import Triple
from medmtl.data.prepared import Intensity, Preparation
from medmtl.device import Precision
from medmtl.errors import ArtefactError
from medmtl.networks.shape import NetworkShape


@dataclass(frozen=True)
class CaseView:
    """How some case tasks see their cases, where that is not the voxel tasks' view.

    Attributes:
        kind: ``case`` (whole, at a spacing of its own), ``lesion`` (a window around a mask) or ``tiles``.
        tasks: who sees it.
        preparation: of its cases; the plan's own unless the spacing differs.
        shape: voxels of a sample; of whole cases the most.
        batch: cases per step.
        tiles: samples per case.
        around: label task whose mask shows the lesion.
        share: whether the encoder is the voxel tasks' one.
    """

    kind: Literal["case", "lesion", "tiles"]
    tasks: tuple[str, ...]
    preparation: Preparation
    shape: Triple
    batch: int
    tiles: int = 1
    around: str | None = None
    share: bool = True


@dataclass(frozen=True)
class Plan:
    """The frozen plan of one fold.

    Attributes:
        preparation: the deterministic half of the transforms; part of the cache key.
        intensities: normalisation per channel, in input order.
        view: ``case`` (every sample is a whole case) or ``patch``.
        shape: samples' voxels per axis.
        case_view: how case tasks see their cases, where ``view`` is not theirs.
        batch, network, precision, threads, workers, device: of the training step.
        steps: optimiser steps; None while ``minutes`` has not yet been turned into steps.
        minutes: as configured, or None.
        tasks: per task what it learned from the training fold.
        covariates: what it learned of each clinical covariate that a task reads.
        training_range: what the training fold spans, by name; see :func:`observed_range`.
        memory_bytes: predicted peak memory of the training process.
        disk_bytes: predicted size of the run's checkpoints and of the prepared cases.
        seconds: predicted time of training. None for a number of steps, but for ``medmtl plan``, which measures this
            machine: in a run it would make equal runs differ.
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
    precision: Precision
    threads: int
    workers: int
    steps: int | None
    minutes: float | None
    memory_bytes: int
    case_view: CaseView | None = None
    disk_bytes: int = 0
    seconds: float | None = None
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    covariates: tuple[Covariate, ...] = ()
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
