"""Batches by step number: what a step sees depends on (seed, step) and on nothing else.

Worker processes only change when a batch is made, never what is in it, and a resumed run asks for step n and gets what
the uninterrupted one got.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from medmtl.data.augmentation import Augmentation
from medmtl.data.batch import Batch, ViewBatch
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.crop import Triple, centre_start, draw_start, window
from medmtl.data.prepared import Intensity
from medmtl.data.preparation import normalise
from medmtl.errors import MedmtlError, WorkError
from medmtl.rng import generator

Encoder = Callable[[Any], torch.Tensor]
Sample = tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, bool]]

PREFETCH = 2


class StepDataset(Dataset[Batch]):
    """One view of some cases as a map from step to batch.

    Args:
        cases: of a fold.
        cache: their prepared arrays.
        encoders: task -> its ``encode``; all tasks, in order.
        voxel: names of the voxel tasks.
        truths: task -> case id -> target; a case without an entry is not labelled for the task.
        view: ``case`` (the whole case, centred) or ``patch`` (a random window).
        shape: voxels per sample.
        batch: samples per step.
        seed: of order, windows and augmentation.
        intensities: normalisation per channel.
        augmentation: what may be drawn; None gives every case once, in order, centred, one per step.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        cache: PreparedCache,
        encoders: Mapping[str, Encoder],
        voxel: Collection[str],
        truths: Mapping[str, Mapping[str, Any]],
        *,
        view: Literal["case", "patch"],
        shape: Triple,
        batch: int,
        seed: int,
        intensities: Sequence[Intensity],
        augmentation: Augmentation | None,
    ) -> None:
        self.cases = tuple(cases)
        self.cache = cache
        self.encoders = dict(encoders)
        self.voxel = frozenset(voxel)
        self.truths = truths
        self.view = view
        self.shape = shape
        self.batch = batch if augmentation is not None else 1
        self.seed = seed
        self.intensities = tuple(intensities)
        self.augmentation = augmentation

    def __len__(self) -> int:
        """Steps of one pass over the cases."""
        return -(-len(self.cases) // self.batch)

    def plain(self, limit: int) -> StepDataset:
        """The first ``limit`` cases in order, centred and not augmented, one per step."""
        return StepDataset(
            self.cases[:limit],
            self.cache,
            self.encoders,
            self.voxel,
            self.truths,
            view=self.view,
            shape=self.shape,
            batch=1,
            seed=self.seed,
            intensities=self.intensities,
            augmentation=None,
        )

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            WorkError: naming the case, if its sample cannot be made.
        """
        samples, case_ids = [], []
        for slot in range(self.batch):
            case = self._case(step, slot)
            try:
                samples.append(self._sample(case, step, slot))
            except MedmtlError:
                raise
            except Exception as error:
                raise WorkError(f"case {case.case_id!r} (row {case.row}) could not be loaded: {error}") from error
            case_ids.append(case.case_id)
        view = ViewBatch(
            image_BCDHW=torch.stack([image for image, _, _ in samples]),
            targets={name: torch.stack([targets[name] for _, targets, _ in samples]) for name in self.encoders},
            present={name: torch.tensor([present[name] for _, _, present in samples]) for name in self.encoders},
            case_ids=tuple(case_ids),
        )
        return Batch(step, {self.view: view})

    def _case(self, step: int, slot: int) -> Case:
        if self.augmentation is None:
            return self.cases[step]
        epoch, place = divmod(step * self.batch + slot, len(self.cases))
        return self.cases[int(generator(self.seed, "epoch", epoch).permutation(len(self.cases))[place])]

    def _sample(self, case: Case, step: int, slot: int) -> Sample:
        prepared = self.cache.get(case)
        rng = generator(self.seed, "sample", step, slot)
        size = prepared.image_CDHW.shape[1:]
        random_window = self.view == "patch" and self.augmentation is not None
        start = draw_start(rng, size, self.shape, prepared.foreground) if random_window else centre_start(size, self.shape)
        # normalised before padding, so that the padding is the mean
        inside = tuple(slice(max(0, s), max(0, s) + n) for s, n in zip(start, self.shape, strict=True))
        part = normalise(prepared.image_CDHW[(slice(None), *inside)], prepared.statistics, self.intensities)
        image = torch.from_numpy(window(part, [min(0, s) for s in start], self.shape))
        labels = {
            name: self.encoders[name](window(prepared.labels[name], start, self.shape))
            for name in self.voxel
            if name in prepared.labels
        }
        if self.augmentation is not None:
            image, labels = self.augmentation.apply(image, labels, self.augmentation.draw(rng))
        targets: dict[str, torch.Tensor] = {}
        present: dict[str, bool] = {}
        for name, encode in self.encoders.items():
            if name in self.voxel:
                present[name] = name in labels
                targets[name] = labels[name] if present[name] else encode(np.zeros(self.shape, np.uint8))
            else:
                truth = self.truths[name].get(case.case_id)
                present[name] = truth is not None
                targets[name] = encode(truth)
        return image.contiguous(), targets, present


class _From(Sampler[int]):
    """Steps from ``first`` on, to ``limit`` or without end."""

    def __init__(self, first: int, limit: int | None) -> None:
        self.first, self.limit = first, limit

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first) if self.limit is None else iter(range(self.first, self.limit))


def make_loader(
    dataset: StepDataset, first: int, limit: int | None, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Batches of the steps from ``first``, made ahead by worker processes.

    Args:
        dataset: the view.
        first: first step.
        limit: one past the last step; None for no end.
        workers: processes; 0 makes batches in this process.
        device: memory is pinned for a CUDA device.

    Raises:
        WorkError: if a worker dies, with its cause.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=_From(first, limit),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_start_worker if workers else None,
        multiprocessing_context="fork" if workers and os.name == "posix" else None,
        pin_memory=device.type == "cuda",
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise WorkError(
                f"a loader process died ({str(error).split(chr(10))[0]}), probably for lack of memory; set plan.workers: 0"
            ) from error
        raise


def _start_worker(index: int) -> None:
    """A worker leaves signals to its parent, which commits and then ends it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
