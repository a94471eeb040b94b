"""What the plan learns from the training fold: normalisation, targets, and the range that was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medmtl.config import Config
from medmtl.data.prepared import Intensity, Prepared
from medmtl.data.volume import Grid
from medmtl.planning.plan import Plan
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask

CT_AIR = -500.0  # Hounsfield units: no MR or normalised scan has a typical minimum below
MASKED_SHARE = 0.25  # share of exact zeros from which a scan counts as masked, as in nnU-Net's cropping rule


@dataclass(frozen=True)
class CaseFacts:
    """What planning reads of a prepared case: the file's grid, and statistics per channel, empty for an absent one."""

    native: Grid
    statistics: tuple[Mapping[str, float], ...]


def with_statistics(
    plan: Plan,
    config: Config,
    tasks: Mapping[str, Task],
    cases: Sequence[CaseFacts],
    truths: Mapping[str, Sequence[Any]],
) -> Plan:
    """The plan completed by what is learned from the training fold.

    Args:
        plan: of :func:`make_plan`.
        config: the resolved configuration.
        tasks: the unfitted tasks.
        cases: those of the training fold only.
        truths: task -> targets of its labelled cases.
    """
    reasons = dict(plan.reasons)
    intensities = tuple(
        _intensity(channel, index, config, cases, reasons) for index, channel in enumerate(plan.preparation.channels)
    )
    fitted = {name: learned(task, truths[name], tasks, plan) for name, task in tasks.items()}
    seen: dict[str, list[float]] = {}
    for case in cases:
        for name, value in observed_range(case, plan.preparation.channels, intensities).items():
            seen.setdefault(name, []).append(value)
    return replace(
        plan,
        intensities=intensities,
        tasks=fitted,
        training_range={name: (min(values), max(values)) for name, values in seen.items()},
        reasons=reasons,
    )


def learned(task: Task, truths: Sequence[Any], tasks: Mapping[str, Task], plan: Plan) -> dict[str, Any]:
    """All that a task must know beside its options.

    Args:
        task: unfitted.
        truths: of the training fold's labelled cases.
        tasks: all of the configuration.
        plan: gives the working voxel size.
    """
    found = {**task.fit(truths), **task.resolve(tasks)}
    return {**found, **task.at_spacing(plan.preparation.spacing)} if isinstance(task, BoxTask) else found


def observed_range(
    case: CaseFacts | Prepared, channels: Sequence[str], intensities: Sequence[Intensity]
) -> dict[str, float]:
    """What is compared with the training range: native voxel size per axis, and of each channel that the case has the
    99.5th percentile, and of a CT channel, whose air tells a lost intercept, the 0.5th."""
    sizes = dict(zip(("spacing_0", "spacing_1", "spacing_2"), sorted(case.native.spacing), strict=True))
    held = [(channel, own) for channel, own in zip(channels, case.statistics, strict=True) if own]
    high = {f"intensity_{channel}": float(own["p995"]) for channel, own in held}
    ct = {channel for channel, intensity in zip(channels, intensities, strict=True) if intensity.kind == "ct"}
    low = {f"intensity_low_{channel}": float(own["p005"]) for channel, own in held if channel in ct}
    return {**sizes, **high, **low}


def _intensity(
    channel: str, index: int, config: Config, cases: Sequence[CaseFacts], reasons: dict[str, str]
) -> Intensity:
    # the check refuses a training part in which nobody has the channel
    statistics = [own for case in cases if (own := case.statistics[index])]
    kind = config.plan.normalisation.get(channel)
    reason = config.plan.reason(f"normalisation.{channel}")
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
