"""What a training needs on disk and in shared memory, compared with what there is before anything is prepared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medmtl.build import build_model, build_tasks, build_weighting
from medmtl.checking import Checked
from medmtl.config import Config
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.preparation import FOREGROUND_SAMPLES, working_grid
from medmtl.data.workers import PREFETCH, SHARED_MEMORY
from medmtl.disk import room_at
from medmtl.errors import MachineError
from medmtl.planning import Plan, learned
from medmtl.tasks.base import Task

MARGIN = 1.1
BLOCK = 4096  # bytes that a file system gives at once
LOG_BYTES = 500  # of one step's line
NAME_BYTES = 200  # of a tensor or parameter in a header or a state
RUN_FILES = 20
CHECKPOINT_FILES = 7
ENTRY_FILES = 3  # folder, image and record; two more per label


@dataclass(frozen=True)
class DiskNeed:
    """What a fold's training will write.

    Attributes:
        run_bytes, run_files: checkpoints at the moment when one more than are kept lie there, and the log.
        entry_bytes, entry_files: case id -> of its entry in the cache.
    """

    run_bytes: int
    run_files: int
    entry_bytes: Mapping[str, int]
    entry_files: Mapping[str, int]

    @property
    def reason(self) -> str:
        """What takes it."""
        cache = sum(self.entry_bytes.values())
        return (
            f"{_size(self.run_bytes)} of checkpoints and log, and {_size(cache)} of prepared cases, which runs with "
            "equal settings share"
        )

    @property
    def bytes(self) -> int:
        """All of it, as if the cache were empty."""
        return self.run_bytes + sum(self.entry_bytes.values())


def predict_disk(config: Config, checked: Checked, plan: Plan, cases: Iterable[Case]) -> DiskNeed:
    """What training a fold will write.

    Args:
        config: the experiment.
        checked: of the check; free of rejects.
        plan: of the fold, complete or not.
        cases: of the fold, for training and validation.
    """
    commits = math.inf if plan.steps is None else math.ceil(plan.steps / config.training.checkpoint_every)
    copies = int(min(config.training.keep + 1, commits))
    prints = {case.case_id: checked.fingerprints[case.case_id] for case in cases}
    return DiskNeed(
        copies * _checkpoint_bytes(config, checked, plan) + LOG_BYTES * (plan.steps or 0),
        RUN_FILES + copies * CHECKPOINT_FILES,
        {name: _entry_bytes(plan, found) for name, found in prints.items()},
        {
            name: ENTRY_FILES + 2 * len({**found.label_counts, **found.map_quantiles, **found.box_sizes_mm})
            for name, found in prints.items()
        },
    )


def refuse_full_disk(out: Path, need: DiskNeed, cache: PreparedCache, cases: Sequence[Case]) -> None:
    """Refuse a run that its disk, or the cache's, will not hold.

    Raises:
        MachineError: naming what is needed, what there is, and the setting to change.
    """
    missing = [case.case_id for case in cases]
    if _shortage(out, need, cache.folder, missing) is not None:
        # entries that are there already take no room; finding out means hashing files, so only where it matters
        missing = [case.case_id for case in cases if not cache.holds(case)]
    shortage = _shortage(out, need, cache.folder, missing)
    if shortage is not None:
        raise MachineError(
            f"{shortage}: free space, lower training.keep, or set cache.folder to another disk", code="B045"
        )


def _shortage(out: Path, need: DiskNeed, cache: Path, missing: Sequence[str]) -> str | None:
    """Which disk does not hold what will lie on it; run and cache may share one."""
    wanted: dict[int, tuple[Path, float, float]] = {}
    shares = (
        (out, need.run_bytes, need.run_files),
        (cache, sum(need.entry_bytes[name] for name in missing), sum(need.entry_files[name] for name in missing)),
    )
    for place, size, files in shares:
        device = room_at(place).device
        first, total, count = wanted.get(device, (place, 0.0, 0.0))
        wanted[device] = (first, total + MARGIN * size, count + MARGIN * files)
    for place, total, count in wanted.values():
        room = room_at(place)
        if total > room.bytes or (room.files is not None and count > room.files):
            return (
                f"the disk of {place} has {_size(room.bytes)} free{_inodes(room.files)}, and the run needs about "
                f"{_size(total)} and {math.ceil(count)} files there"
            )
    return None


def refuse_small_shared_memory(plan: Plan, tasks: Mapping[str, Task]) -> None:
    """Refuse more loader processes than the shared memory holds batches for.

    Raises:
        MachineError: naming the number of processes that fits.
    """
    if not plan.workers or not SHARED_MEMORY.is_dir():
        return
    pixel = 4 * plan.network.in_channels
    sample = pixel + sum(_target_bytes(task) for task in tasks.values() if task.voxel)
    batch = plan.batch * math.prod(plan.shape) * sample
    if (second := plan.case_view) is not None:
        batch += second.batch * second.tiles * math.prod(second.shape) * pixel
    # those made ahead, and the one in use
    needed = (plan.workers * PREFETCH + 1) * batch
    free = room_at(SHARED_MEMORY).bytes
    if needed > free:
        fits = max(0, (free // batch - 1) // PREFETCH)
        raise MachineError(
            f"{plan.workers} loader processes need {_size(needed)} of shared memory, and {SHARED_MEMORY} has "
            f"{_size(free)} free; set plan.workers: {fits}, or enlarge it (docker run --shm-size)",
            code="B046",
        )


def _target_bytes(task: Task) -> int:
    target: torch.Tensor = task.encode(np.zeros((1, 1, 1), np.uint8))
    return int(target.element_size())


def _checkpoint_bytes(config: Config, checked: Checked, plan: Plan) -> int:
    """Bytes of a commit: weights, their average, and what the optimiser keeps: AdamW two moments, SGD one."""
    unfitted = build_tasks(config)
    truths = {name: list(checked.learnable(name).values()) for name in unfitted}
    fitted = {name: learned(task, truths[name], unfitted, plan) for name, task in unfitted.items()}
    with torch.random.fork_rng(devices=[]):
        model, weighting = build_model(config, plan, build_tasks(config, fitted)), build_weighting(config)
    weights = [*model.state_dict().values()]
    own = [*weighting.state_dict().values()]
    kept = 1 if config.training.optimiser == "sgd" else 2
    moments = kept * sum(p.nbytes for part in (model, weighting) for p in part.parameters())
    tensors = sum(t.nbytes for t in weights) * (2 if config.training.average else 1) + sum(t.nbytes for t in own)
    return int(tensors + moments) + 6 * NAME_BYTES * len(weights) + CHECKPOINT_FILES * BLOCK


def _entry_bytes(plan: Plan, seen: Fingerprint) -> int:
    second = 0
    if plan.case_view is not None and plan.case_view.preparation != plan.preparation:
        coarse = math.prod(working_grid(seen.grid, plan.case_view.preparation.spacing).shape)
        second = BLOCK * math.ceil(4 * coarse * len(plan.preparation.channels) / BLOCK) + 3 * BLOCK
    voxels = math.prod(working_grid(seen.grid, plan.preparation.spacing).shape)
    sizes = [4 * voxels * len(plan.preparation.channels), BLOCK]
    for counts in seen.label_counts.values():
        largest = max(counts, default=0)
        sizes.append(voxels * (1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4))
        sizes.append(sum(16 * min(count, FOREGROUND_SAMPLES) for value, count in counts.items() if value))
    for task, boxes in seen.box_sizes_mm.items():
        if task not in seen.label_counts:
            drawn = (boxes / plan.preparation.spacing + 1).prod(axis=1).clip(max=FOREGROUND_SAMPLES)
            sizes += [voxels * np.min_scalar_type(len(boxes)).itemsize, 16 * math.ceil(drawn.sum())]
    for task, quantiles in seen.map_quantiles.items():
        sizes += [4 * voxels, 16 * FOREGROUND_SAMPLES if plan.preparation.maps[task][1] and quantiles.size else 0]
    return sum(BLOCK * math.ceil((size + 128) / BLOCK) for size in sizes) + BLOCK + second


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _inodes(files: int | None) -> str:
    return "" if files is None else f" for {files} files"
