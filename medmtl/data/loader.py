"""Batches by step number: what a step sees depends on (seed, step) and on nothing else.

Worker processes only change when a batch is made, never what is in it, and a resumed run asks for step n and gets what
the uninterrupted one got.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from medmtl.data.augmentation import Augmentation, Draw
from medmtl.data.batch import Batch, ViewBatch
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case, named
from medmtl.data.channels import drop_channels, held_channels, with_indicators
from medmtl.data.covariates import Covariate, encode_case
from medmtl.data.crop import Triple, whole_shape
from medmtl.data.order import AsListed, Order
from medmtl.data.preparation import normalise
from medmtl.data.prepared import Intensity, Prepared
from medmtl.data.view import CASE_LEVEL, View
from medmtl.errors import MachineError, MedmtlError, WorkError, out_of_memory
from medmtl.rng import generator

Encoder = Callable[[Any], torch.Tensor]
Noting = Callable[[torch.Tensor, Case], torch.Tensor]
Sample = tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, bool]]
"""Images of a case (tiles, C, D, H, W), its targets, and which of them it is labelled for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StepDataset(Dataset[Batch]):
    """One view of some cases as a map from step to batch.

    Attributes:
        cases: of a fold.
        cache: their prepared arrays.
        encoders: task -> its ``encode``; all tasks, in order.
        voxel: names of the voxel tasks.
        truths: task -> case id -> target; a case without an entry is not labelled for the task.
        view: which part of a case its samples show.
        divisor: what the network divides a sample's axes by.
        batch: cases per step.
        slots: of each step, the ones whose samples are made here. A sample does not depend on who makes it.
        order: of the cases.
        seed: of windows and augmentation.
        intensities: normalisation per channel.
        augmentation: what may be drawn; None gives the cases centred and as they are.
        sensitive: task -> what would change its label; a sample that was changed so is not labelled for it.
        covariates: the clinical covariates that a task reads, as learned.
        teaches: voxel task -> whether a case with its mask is labelled; all are for a task without an entry.
        notes: voxel task -> what adds to a target what else the case's row says of it; not in the cache, which is by
            content of the files.
    """

    cases: Sequence[Case]
    cache: PreparedCache
    encoders: Mapping[str, Encoder]
    voxel: Collection[str]
    truths: Mapping[str, Mapping[str, Any]]
    view: View
    divisor: Triple
    batch: int
    slots: Sequence[int]
    order: Order
    seed: int
    intensities: Sequence[Intensity]
    augmentation: Augmentation | None
    sensitive: Mapping[str, Collection[str]] = field(default_factory=dict)
    covariates: Sequence[Covariate] = ()
    teaches: Mapping[str, Callable[[Case], bool]] = field(default_factory=dict)
    notes: Mapping[str, Noting] = field(default_factory=dict)

    def __len__(self) -> int:
        """Steps of a pass over the cases; see :class:`medmtl.data.order.Order`."""
        return -(-self.order.span // self.batch)

    def plain(self, limit: int) -> StepDataset:
        """The first ``limit`` cases in order, centred and not augmented, one per step."""
        cases = self.cases[:limit]
        return replace(self, cases=cases, batch=1, slots=(0,), order=AsListed(len(cases)), augmentation=None)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            MachineError: if memory runs out; names the case.
            WorkError: if a sample cannot be made for another reason; names the case.
        """
        chosen = self._chosen(step)
        with _one_thread():
            prepared = [self._prepared(case) for case in chosen]
            shape = self._shape(prepared, step)
            samples = [
                self._sample(case, held, shape, step, slot)
                for slot, case, held in zip(self.slots, chosen, prepared, strict=True)
            ]
        view = ViewBatch(
            image_BCDHW=torch.cat([images for images, _, _ in samples]),
            targets={name: torch.stack([targets[name] for _, targets, _ in samples]) for name in self.encoders},
            present={name: torch.tensor([present[name] for _, _, present in samples]) for name in self.encoders},
            case_ids=tuple(case.case_id for case in chosen),
            rows=tuple(case.row for case in chosen),
            covariates_BN=torch.stack([encode_case(self.covariates, case) for case in chosen]),
            tiles=self.view.tiles,
        )
        return Batch(step, {self.view.kind: view})

    def named(self, step: int) -> str:
        """The cases of a step with their rows, for a message; nothing is loaded."""
        chosen = self._chosen(step)
        return named([case.case_id for case in chosen], [case.row for case in chosen])

    def _chosen(self, step: int) -> list[Case]:
        return [self._case(step, slot) for slot in self.slots]

    def _case(self, step: int, slot: int) -> Case:
        return self.cases[self.order.case(step, slot)]

    def _prepared(self, case: Case) -> Prepared:
        with _naming(case):
            return self.cache.get(case)

    def _shape(self, prepared: Sequence[Prepared], step: int) -> Triple:
        if self.view.kind != "case":
            return self.view.shape
        # what is made elsewhere is padded to the same shape
        elsewhere = [self._case(step, slot) for slot in range(self.batch) if slot not in self.slots]
        prepared = [*prepared, *map(self._prepared, elsewhere)]
        return whole_shape((held.image_CDHW.shape[1:] for held in prepared), self.view.shape, self.divisor)

    def _sample(self, case: Case, prepared: Prepared, shape: Triple, step: int, slot: int) -> Sample:
        with _naming(case):
            rng = generator(self.seed, "sample", step, slot)
            starts = self.view.starts(prepared, shape, rng if self.augmentation is not None else None)
            draw, channels = Draw(), held_channels(prepared.statistics)
            if self.augmentation is not None:
                channels = drop_channels(channels, self.cache.preparation, self.seed, step, slot)
                labelled = [name for name in self.encoders if self._is_labelled(name, case, prepared)]
                draw = self.augmentation.draw(rng, [self._spoilt_by(name) for name in labelled])
            windows = [self._window(prepared, start, shape, draw, channels) for start in starts]
            images = torch.stack([image for image, _ in windows])
            return images, *self._targets(case, prepared, windows[0][1], shape, draw)

    def _window(
        self, prepared: Prepared, start: Triple, shape: Triple, draw: Draw, channels: Sequence[bool]
    ) -> tuple[torch.Tensor, dict[str, npt.NDArray[Any]]]:
        settings = self.augmentation or Augmentation.off((1.0, 1.0, 1.0))
        part = settings.reach(draw, start, shape, prepared.image_CDHW.shape[1:])
        image, labels = settings.place(
            # normalised before it is placed, so that what lies outside the case is the mean
            normalise(prepared.image_CDHW[(slice(None), *part)], prepared.statistics, self.intensities),
            {name: np.asarray(label[part]) for name, label in prepared.labels.items() if name in self.voxel},
            draw,
            [s - p.start for s, p in zip(start, part, strict=True)],
            shape,
        )
        # last, so that nothing is drawn over a channel that is not there
        image = with_indicators(settings.recolour(image, draw), channels, self.cache.preparation)
        return image.contiguous(), labels

    def _is_labelled(self, name: str, case: Case, prepared: Prepared) -> bool:
        if name in self.voxel:
            return name in prepared.labels and (name not in self.teaches or self.teaches[name](case))
        return case.case_id in self.truths[name] and self.view.shows(prepared)

    def _counts(self, name: str, label: npt.NDArray[Any]) -> bool:
        """Whether any voxel of a sample counts: where none does, nobody labelled it, whatever its case has."""
        if name in self.cache.preparation.maps:
            return not np.isnan(label).all()
        ignored = self.cache.preparation.ignored.get(name)
        return ignored is None or bool((label != ignored).any())

    def _spoilt_by(self, name: str) -> frozenset[str]:
        """What would change the task's label: not a crop, where a sample stands for its case however it is cut."""
        own = frozenset(self.sensitive.get(name, ()))
        return own - {"crop"} if self.view.kind in CASE_LEVEL else own

    def _targets(
        self, case: Case, prepared: Prepared, labels: Mapping[str, npt.NDArray[Any]], shape: Triple, draw: Draw
    ) -> tuple[dict[str, torch.Tensor], dict[str, bool]]:
        targets: dict[str, torch.Tensor] = {}
        present: dict[str, bool] = {}
        for name, encode in self.encoders.items():
            present[name] = self._is_labelled(name, case, prepared)
            if name in self.voxel:
                targets[name] = encode(labels[name] if present[name] else np.zeros(shape, np.uint8))
                if name in self.notes:
                    targets[name] = self.notes[name](targets[name], case)
                present[name] = present[name] and self._counts(name, labels[name])
            else:
                targets[name] = encode(self.truths[name].get(case.case_id))
            present[name] = present[name] and not self._spoilt_by(name) & draw.changes
        return targets, present


class StepViews(Dataset[Batch]):
    """Several views as one map from step to batch; each has cases and samples of its own.

    Args:
        views: at least one, of different kinds.
    """

    def __init__(self, views: Sequence[StepDataset]) -> None:
        self.views = tuple(views)

    def epoch(self, steps: int) -> float:
        """Passes over the cases of the first view after some steps; ``span`` as of :class:`medmtl.data.order.Order`."""
        first = self.views[0]
        return steps * first.batch / first.order.span

    def __len__(self) -> int:
        """Steps of one pass over the cases of the longest view."""
        return max(map(len, self.views))

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step; raises as :class:`StepDataset`."""
        found = [view[step] for view in self.views if view.slots]
        return Batch(step, {kind: samples for batch in found for kind, samples in batch.views.items()})

    def plain(self, tasks: Collection[str], limit: int | None) -> Iterator[ViewBatch]:
        """The first cases, or all, as each view that one of these tasks sees shows them: in order, not augmented.

        Args:
            tasks: names.
            limit: most cases.
        """
        for view in self.views:
            if not set(tasks) & view.encoders.keys():
                continue
            watched = view.plain(len(view.cases) if limit is None else limit)
            for index in range(len(watched)):
                yield from watched[index].views.values()

    def named(self, step: int) -> str:
        """See :meth:`StepDataset.named`."""
        return "; ".join(dict.fromkeys(view.named(step) for view in self.views))


@contextmanager
def _naming(case: Case) -> Iterator[None]:
    """Faults inside say which case they are about."""
    where = f"case {case.case_id!r} (row {case.row}) could not be loaded"
    try:
        yield
    except MedmtlError:
        raise
    except Exception as error:
        if (wanted := out_of_memory(error)) is not None:
            raise MachineError(f"{where}: {wanted}; lower plan.workers or plan.memory_gb") from error
        raise WorkError(f"{where}: {type(error).__name__}: {error}") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread, as worker processes do: a sum over several differs in its last bits with their number."""
    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads != 1:
            torch.set_num_threads(threads)
