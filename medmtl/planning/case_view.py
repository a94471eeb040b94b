"""How case tasks see a case that is no sample of the voxel tasks' view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medmtl.config import Config
from medmtl.data.crop import LEAST, Triple, norms_hold, round_up
from medmtl.data.fingerprint import Fingerprint
from medmtl.errors import ConfigError, InputError
from medmtl.planning.memory import Budget
from medmtl.planning.network import working_sizes
from medmtl.planning.outline import Outline
from medmtl.planning.plan import CaseView
from medmtl.planning.sample import CPU_VOXELS, seeing_tasks, smallest_batch, why_not_whole
from medmtl.planning.spacing import coarser
from medmtl.tasks.base import Task
from medmtl.tasks.voxel import LabelTask

SEEN_VOXELS = 4  # per axis: a lesion that is smaller in a coarse view cannot be told from its neighbours
SEEN_PERCENTILE = 10
AROUND = 2.0  # a lesion's window against the 90th percentile of the lesions' diameters
SHARE = 4  # part of the memory budget that a second view may take: one of four
GPU_VOXELS = 4_000_000
CUT = 0.1  # part of the cases that a set shape may cut and still be that of whole cases
MOST_CASES = 4
MOST_TILES = 8


def choose_kind(
    config: Config,
    tasks: Mapping[str, Task],
    fingerprints: Sequence[Fingerprint],
    drawn: Outline,
    reasons: dict[str, str],
) -> str:
    """``one`` where the case tasks see what the voxel tasks see; else ``two``, ``lesion`` or ``tiles``.

    Args:
        config: the resolved configuration; ``views.kind`` wins.
        tasks: the unfitted tasks.
        fingerprints: of all cases but the test split.
        drawn: of :func:`medmtl.planning.outline.outline`.
        reasons: gets the reason.

    Raises:
        ConfigError: if the kind that was set has nothing to show.
    """
    seeing, wanted = seeing_tasks(tasks), config.views.kind
    others = len(seeing) < sum(task.reads_image for task in tasks.values())
    if wanted not in ("auto", "one"):
        _refuse_kind(config, tasks, others, drawn)
        reasons["case_view"] = "set in the configuration"
        return wanted
    why = _why_apart(config, tasks, drawn)
    if wanted == "one" or not seeing or not others or why is None:
        return "one"
    around = lesion_task(config, tasks)
    if around is not None and any(tasks[name].options.evidence == "lesion" for name in seeing):
        reasons["case_view"] = f"a task's evidence is the lesion, which {around} shows"
        return "lesion"
    spacing = config.views.spacing or _whole_spacing(fingerprints, drawn)
    smallest = None if spacing is None else _smallest_seen(tasks, fingerprints, around, spacing, drawn.spacing)
    if spacing is None:
        reasons["case_view"] = "no view of the whole case fits a quarter of the memory budget"
    elif smallest is None or smallest >= SEEN_VOXELS:
        reasons["case_view"] = f"{why}; a view of the whole case fits beside the patches"
        return "two"
    else:
        reasons["case_view"] = (
            f"in a view of the whole case that fits, a tenth of the lesions would have {smallest:.1f} voxels per axis "
            f"or less, and {SEEN_VOXELS} are wanted"
        )
    return "tiles" if around is None else "lesion"


def whole_view(
    config: Config, tasks: Mapping[str, Task], fingerprints: Sequence[Fingerprint], drawn: Outline
) -> CaseView:
    """The whole case at the finest spacing that a share of the budget holds, or at ``views.spacing``.

    At the patches' spacing it is read from the cases that they are cut from.

    Raises:
        InputError: B089 if no spacing fits, or lesions are too small at the one that does.
    """
    spacing = config.views.spacing or _whole_spacing(fingerprints, drawn)
    if spacing is None:
        raise InputError(
            f"no view of the whole case fits a quarter of plan.memory_gb {drawn.budget.limit_bytes / 1e9:g}; raise it, "
            "or set views.kind: tiles",
            code="B089",
        )
    if config.views.spacing is None:
        smallest = _smallest_seen(tasks, fingerprints, lesion_task(config, tasks), spacing, drawn.spacing)
        if smallest is not None and smallest < SEEN_VOXELS:
            raise InputError(
                f"views.kind two shows the whole case at {list(spacing)} mm, where a tenth of the lesions has "
                f"{smallest:.1f} voxels per axis or less, and {SEEN_VOXELS} are wanted; set views.kind: lesion or "
                "tiles, or a views.spacing of your own",
                code="B089",
            )
    shape = _held(fingerprints, spacing, drawn.divisor)
    preparation = drawn.preparation(config, tasks)
    if spacing != drawn.spacing:
        preparation = replace(preparation, spacing=spacing, labels={}, ignored={}, maps={}, boxes={})
    return CaseView(
        "case", tuple(seeing_tasks(tasks)), preparation, shape, _cases(drawn, shape), share=config.views.share
    )


def lesion_view(
    config: Config, tasks: Mapping[str, Task], fingerprints: Sequence[Fingerprint], drawn: Outline
) -> CaseView:
    """A window of twice the 90th percentile of the lesions' diameters, or of ``views.shape``.

    Raises:
        InputError: B140 if a set shape does not fit the network.
    """
    around = lesion_task(config, tasks)
    assert around is not None  # or the kind was refused
    wanted = config.views.shape
    if wanted is None:
        diameters = lesion_diameters(around, fingerprints) or [0.0]
        edge = AROUND * float(np.percentile(diameters, 90))
        x, y, z = (max(LEAST * d, math.ceil(edge / s)) for s, d in zip(drawn.spacing, drawn.divisor, strict=True))
        wanted = (x, y, z)
    shape = round_up(wanted, drawn.divisor)
    if not norms_hold(shape, drawn.divisor):
        raise InputError(
            f"views.shape {list(wanted)}, divided by {list(drawn.divisor)}, is a single voxel at the network's deepest "
            f"stage, and a norm wants two; nearest: {[2 * shape[0], *shape[1:]]}",
            code="B140",
        )
    if config.views.shape is not None and shape != config.views.shape:
        raise InputError(
            f"views.shape {list(wanted)} must be divisible by {list(drawn.divisor)}; nearest: {list(shape)}",
            code="B140",
        )
    return CaseView(
        "lesion",
        tuple(seeing_tasks(tasks)),
        drawn.preparation(config, tasks),
        shape,
        _cases(drawn, shape),
        around=around,
        share=config.views.share,
    )


def tiles_view(config: Config, tasks: Mapping[str, Task], drawn: Outline, shape: Triple) -> CaseView:
    """Windows of the patches' shape; as many per case as the budget holds, two at least.

    Args:
        config: the resolved configuration; ``views.tiles`` wins.
        tasks: the unfitted tasks.
        drawn: of :func:`medmtl.planning.outline.outline`.
        shape: of the voxel tasks' patches.
    """
    alone = drawn.seen
    room = drawn.budget.limit_bytes / SHARE // alone.maps(shape, 1)
    bound = min(MOST_TILES, room, _most_voxels(drawn.budget) // math.prod(shape))
    return CaseView(
        "tiles",
        tuple(seeing_tasks(tasks)),
        drawn.preparation(config, tasks),
        shape,
        1,
        tiles=config.views.tiles or int(max(2, bound)),
        around=lesion_task(config, tasks),
        share=config.views.share,
    )


def say_case_view(
    view: CaseView, around: str | None, fingerprints: Sequence[Fingerprint], reasons: dict[str, str]
) -> None:
    """Tell what the view shows, and how large the lesions of a task are in it."""
    what = {"case": "the whole case", "lesion": f"a window around the largest part of {view.around}", "tiles": "tiles"}
    reasons["case_view.shape"] = f"{what[view.kind]}, for {', '.join(view.tasks)}"
    diameters = lesion_diameters(around, fingerprints) if around else []
    if diameters:
        low, middle = np.percentile(diameters, [SEEN_PERCENTILE, 50]) / max(view.preparation.spacing)
        reasons["case_view.lesions"] = (
            f"a tenth of the lesions of {around} has {low:.1f} voxels per axis or less in this view, half of them "
            f"{middle:.1f} or less"
        )


def lesion_task(config: Config, tasks: Mapping[str, Task]) -> str | None:
    """The label task whose mask shows the lesion: the named one, or the only one."""
    found = [name for name, task in tasks.items() if isinstance(task, LabelTask)]
    if config.views.around is not None:
        return config.views.around if config.views.around in found else None
    return found[0] if len(found) == 1 else None


def lesion_diameters(task: str, fingerprints: Sequence[Fingerprint]) -> list[float]:
    """Of each case with a foreground, the diameter in mm of the ball of its volume."""
    found = []
    for seen in fingerprints:
        count = sum(number for value, number in seen.label_counts.get(task, {}).items() if value)
        if count:
            found.append((6 * count * math.prod(seen.grid.spacing) / math.pi) ** (1 / 3))
    return found


def _why_apart(config: Config, tasks: Mapping[str, Task], drawn: Outline) -> str | None:
    """What keeps case tasks from seeing whole cases in the voxel tasks' samples; None if nothing does."""
    if config.plan.shape is None:
        return why_not_whole(drawn.budget, round_up(drawn.whole, drawn.divisor), smallest_batch(config, tasks))
    larger = sum(any(n > m for n, m in zip(size, drawn.whole, strict=True)) for size in drawn.sizes)
    if larger <= CUT * len(drawn.sizes):
        return None
    return f"{larger} of {len(drawn.sizes)} cases are larger than the shape that is set, so that it is a patch's"


def _smallest_seen(
    tasks: Mapping[str, Task],
    fingerprints: Sequence[Fingerprint],
    around: str | None,
    spacing: Sequence[float],
    working: Sequence[float],
) -> float | None:
    """Voxels per axis of the 10th percentile of the lesions, along the axes that a whole view would coarsen."""
    coarse = max((s for s, own in zip(spacing, working, strict=True) if s > own), default=None)
    shown = [around] if around else [name for name, task in tasks.items() if isinstance(task, LabelTask)]
    found = [np.percentile(d, SEEN_PERCENTILE) for name in shown if (d := lesion_diameters(name, fingerprints))]
    return float(min(found)) / coarse if found and coarse else None


def _whole_spacing(fingerprints: Sequence[Fingerprint], drawn: Outline) -> tuple[float, float, float] | None:
    """The finest one at which a case takes no more than its share of memory and of a step's voxels."""
    alone = drawn.seen
    for spacing in (drawn.spacing, *coarser(drawn.spacing)):
        shape = _held(fingerprints, spacing, drawn.divisor)
        if math.prod(shape) <= _most_voxels(drawn.budget) // 2 and alone.maps(shape, 1) <= alone.limit_bytes / SHARE:
            return spacing
    return None


def _held(fingerprints: Sequence[Fingerprint], spacing: tuple[float, float, float], divisor: Triple) -> Triple:
    largest = [max(axis) for axis in zip(*working_sizes(fingerprints, spacing), strict=True)]
    return round_up([max(n, LEAST * d) for n, d in zip(largest, divisor, strict=True)], divisor)


def _cases(drawn: Outline, shape: Triple) -> int:
    """Cases per step: as many as cost what the voxel tasks' step costs and the view's share holds, four at most."""
    room = drawn.budget.limit_bytes / SHARE // drawn.seen.maps(shape, 1)
    return int(max(1, min(MOST_CASES, room, _most_voxels(drawn.budget) // math.prod(shape))))


def _most_voxels(budget: Budget) -> int:
    return CPU_VOXELS if budget.device.kind == "cpu" else GPU_VOXELS


def _refuse_kind(config: Config, tasks: Mapping[str, Task], others: bool, drawn: Outline) -> None:
    kind, seeing = config.views.kind, seeing_tasks(tasks)
    if not seeing:
        raise ConfigError(
            f"{kind!r} is for tasks that must see the case, and there is none; leave it away",
            key="views.kind",
            code="B142",
        )
    masks = [name for name, task in tasks.items() if isinstance(task, LabelTask)]
    named = config.views.around
    if named is not None and named not in masks:
        known = f"tasks with labels per voxel: {', '.join(masks) or 'none'}"
        raise ConfigError(f"{named!r} has no mask; {known}", key="views.around", code="B141")
    if kind == "lesion" and lesion_task(config, tasks) is None:
        known = f"one of {', '.join(masks)} as views.around" if masks else "a task with labels per voxel"
        raise ConfigError(f"'lesion' wants a mask to look for; name {known}", key="views.kind", code="B142")
    if kind == "two" and not others:
        raise ConfigError(
            "'two' is for cohorts with voxel tasks beside the case tasks; set plan.spacing for a coarser view",
            key="views.kind",
            code="B142",
        )
    whole = round_up(drawn.whole, drawn.divisor)
    if kind != "lesion" and config.plan.shape is None and why_not_whole(drawn.budget, whole, 2) is None:
        raise ConfigError(
            f"{kind!r} beside patches, but whole cases are small enough, and one view shows them better; leave it "
            "away, or set plan.shape to a patch's",
            key="views.kind",
            code="B142",
        )
