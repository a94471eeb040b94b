"""Segmentation: one label, or a set of overlapping regions, per voxel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.losses.deep_supervision import deep_supervision
from medmtl.losses.dice import dice_entropy_loss
from medmtl.losses.terms import FOCAL_GAMMA, label_terms, region_terms
from medmtl.losses.tversky import tversky_loss
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.expected_width import ExpectedWidth, dice_width
from medmtl.metrics.figures import Figure, StripFigure
from medmtl.metrics.overlap import volume_ml
from medmtl.networks.features import FeatureSpec
from medmtl.networks.voxel_head import VoxelHead
from medmtl.tasks.base import Cell, Result, ScoredCase, Task
from medmtl.tasks.segmentation.annotation import dtype_with_note, read_unannotated, with_note, without_note
from medmtl.tasks.segmentation.options import BETA, SegmentationOptions
from medmtl.tasks.segmentation.scores import estimates, mask_scores, without_labels
from medmtl.tasks.voxel import UNLABELLED, LabelTask


@dataclass(frozen=True)
class SegmentationResult(Result):
    """A mask on the case's own grid.

    Attributes:
        volumes_ml: label name -> predicted volume.
    """

    volumes_ml: Mapping[str, float] = field(default_factory=dict)

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME_LABEL_ml`` for each label."""
        return {f"{name}_{label}_ml": round(volume, 4) for label, volume in self.volumes_ml.items()}


class Segmentation(LabelTask):
    """One label per voxel by a softmax, or regions by sigmoids; Dice and cross-entropy unless another is chosen."""

    kind = "segmentation"
    Options = SegmentationOptions
    options: SegmentationOptions

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of label files."""
        return (self.options.column,)

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`SegmentationResult.cells`."""
        return tuple(f"{self.name}_{label}_ml" for label in self.options.labels)

    def read(self, case: Case) -> Path | None:
        """The label file, or None where the case has none.

        Raises:
            CellError: as :meth:`unannotated`.
        """
        self.unannotated(case)
        return case.files.get(self.options.column)

    @property
    def annotated_column(self) -> str | None:
        """As declared."""
        return self.options.annotated

    def unannotated(self, case: Case) -> frozenset[str]:
        """See :func:`medmtl.tasks.segmentation.annotation.read_unannotated`; none for a case without a mask."""
        column = self.options.annotated
        if column is None or self.options.column not in case.files:
            return frozenset()
        return read_unannotated(case.cells.get(column), list(self.options.labels), column)

    def fit(self, truths: Sequence[Any]) -> dict[str, Any]:
        """Nothing to learn; every one of its losses is on a scale of 1 as it is."""
        return {"loss_scale": 1.0}

    def legal_values(self) -> frozenset[int]:
        """Background and declared labels."""
        return frozenset({0, *self.options.labels.values()})

    @property
    def named_values(self) -> Mapping[str, int]:
        """As declared."""
        return self.options.labels

    @property
    def ignored_value(self) -> int | None:
        """As declared."""
        return self.options.ignore

    def values_of(self, label: str | None) -> tuple[int, ...]:
        """Values of a label or region, or of the whole foreground."""
        if label is None:
            return tuple(self.options.labels.values())
        if label in self.options.labels:
            return (self.options.labels[label],)
        if label in self.options.regions:
            return tuple(self.options.labels[member] for member in self.options.regions[label])
        raise ValueError(f"task {self.name!r} has no label or region {label!r}")

    def same_target(self, other: Task) -> None:
        """The labels must have the same names; their values may differ."""
        super().same_target(other)
        assert isinstance(other, Segmentation)
        if set(other.options.labels) != set(self.options.labels):
            raise ValueError(
                f"its labels are {', '.join(other.options.labels)}, and the model's are "
                f"{', '.join(self.options.labels)}"
            )

    def translated(self, array: npt.NDArray[Any], source: LabelTask) -> npt.NDArray[Any]:
        """The values of the labels of the same name; what ``source`` does not declare is background.

        A voxel that nobody labelled is :data:`UNLABELLED`, whatever value says so in either cohort.
        """
        found = np.zeros(array.shape, np.int32)
        for label, value in self.options.labels.items():
            found[np.isin(array, source.values_of(label))] = value
        if source.ignored_value is not None:
            found[array == source.ignored_value] = UNLABELLED
        return found

    def encode(self, truth: Any) -> torch.Tensor:
        """Label values (D, H, W) -> class indices: 0 background, labels in the declared order, then what is ignored.

        uint8, or a larger integer where that does not hold them. The array holds legal values and the ignored one only.
        """
        values = list(self.options.labels.values())
        if self.options.ignore is not None:
            values.append(self.options.ignore)
        notes = 0 if self.options.annotated is None else len(self.options.labels)
        table = np.zeros(max(values) + 1, dtype_with_note(len(values) + 1, notes))
        table[values] = np.arange(1, len(values) + 1)
        return torch.from_numpy(np.take(table, np.asarray(truth)))

    def untaught(self, case: Case) -> frozenset[str]:
        """With ``train: regions`` those of which a label is unknown; labels teach the background, whoever is known."""
        hidden = self.unannotated(case) if self.options.train == "regions" else frozenset()
        return frozenset(name for name, labels in self.options.regions.items() if not hidden.isdisjoint(labels))

    def noted(self, target: torch.Tensor, case: Case) -> torch.Tensor:
        """With a note of the labels that nobody looked for; see :mod:`medmtl.tasks.segmentation.annotation`."""
        hidden = self.unannotated(case)
        return with_note(target, [i for i, name in enumerate(self.options.labels) if name in hidden], self._indices)

    @property
    def _indices(self) -> int:
        """Class indices with the background and what is ignored."""
        return len(self.options.labels) + (1 if self.options.ignore is None else 2)

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Class channels including the background, or one channel per region."""
        regions = self.options.train == "regions"
        return VoxelHead(spec, len(self.options.regions) if regions else len(self.options.labels) + 1)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """The declared loss at every supervised level, shape (B,); 0 for a sample of which every voxel is ignored.

        A label that nobody looked for may hide in the background; see :func:`medmtl.losses.terms.label_terms`. With
        ``train: regions`` a region of which a label is unknown is left out.
        """
        hidden_BL = None
        if self.options.annotated is not None:
            target, hidden_BL = without_note(target, self._indices, len(self.options.labels))
        with torch.autocast(target.device.type, enabled=False):
            return deep_supervision(partial(self._level_loss, hidden_BL=hidden_BL), output, target)

    def _level_loss(
        self, logits_BCDHW: torch.Tensor, target_BDHW: torch.Tensor, hidden_BL: torch.Tensor | None
    ) -> torch.Tensor:
        counted_BDHW = None
        if self.options.ignore is not None:
            counted_BDHW = target_BDHW <= len(self.options.labels)
            target_BDHW = target_BDHW * counted_BDHW
        gamma = FOCAL_GAMMA if self.options.loss == "dice_focal" else 0.0
        if self.options.train == "labels":
            terms = label_terms(logits_BCDHW, target_BDHW, counted_BDHW, gamma, hidden_BL)
        else:
            membership_KR = self._membership().to(target_BDHW.device)
            hidden_BR = None if hidden_BL is None else (hidden_BL[:, :, None] & membership_KR[1:]).any(dim=1)
            terms = region_terms(logits_BCDHW, target_BDHW, membership_KR, counted_BDHW, gamma, hidden_BR)
        if self.options.loss == "tversky":
            return tversky_loss(terms, BETA if self.options.beta is None else self.options.beta)
        return dice_entropy_loss(terms)

    def _membership(self) -> torch.Tensor:
        rows = [[False] * len(self.options.regions)]
        rows += [[label in region for region in self.options.regions.values()] for label in self.options.labels]
        return torch.tensor(rows)

    def activate(self, output: Any) -> torch.Tensor:
        """Softmax over classes, or sigmoid per region, of the finest level."""
        logits: torch.Tensor = output[0].float()
        return logits.softmax(1) if self.options.train == "labels" else logits.sigmoid()

    @property
    def parts(self) -> int:
        """Labels, or regions, which have no background beside them."""
        return len(self.options.labels if self.options.train == "labels" else self.options.regions)

    def foreground(self, probability_BKDHW: torch.Tensor) -> torch.Tensor:
        """1 - background, or that of the likeliest region."""
        if self.options.train == "labels":
            return super().foreground(probability_BKDHW)
        return probability_BKDHW.amax(dim=1, keepdim=True)

    def decide(self, probability_KDHW: torch.Tensor) -> torch.Tensor:
        """The likeliest label, or the last region above one half."""
        if self.options.train == "labels":
            return self._likeliest(probability_KDHW)
        decided = torch.zeros(probability_KDHW.shape[1:], dtype=torch.int64, device=probability_KDHW.device)
        for channel, value in zip(probability_KDHW, self.options.region_values(), strict=True):
            decided[channel > 0.5] = value
        return self._narrow(decided)

    def _likeliest(self, probability_KDHW: torch.Tensor) -> torch.Tensor:
        """The first of the likeliest labels. Class by class, which takes a sixth of the time of torch's argmax."""
        highest = probability_KDHW[0].clone()
        decided = self._narrow(torch.zeros_like(highest))
        for channel, value in zip(probability_KDHW[1:], self.options.labels.values(), strict=True):
            decided.masked_fill_(channel > highest, value)
            torch.maximum(highest, channel, out=highest)
        return decided

    def _narrow(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.uint8 if max(self.options.labels.values()) < 256 else torch.int32)

    def result(self, mask: Volume) -> SegmentationResult:
        """The mask with each label's volume."""
        spacing = mask.grid.spacing
        return SegmentationResult(
            mask, {name: volume_ml(mask.array == value, spacing) for name, value in self.options.labels.items()}
        )

    def mask_scores(
        self, predicted: npt.NDArray[Any], truth: npt.NDArray[Any], spacing: Sequence[float]
    ) -> dict[str, float | None]:
        """See :func:`medmtl.tasks.segmentation.scores.mask_scores`."""
        structures = {name: self.values_of(name) for name in (*self.options.labels, *self.options.regions)}
        ignored = (UNLABELLED,) if self.options.ignore is None else (UNLABELLED, self.options.ignore)
        return mask_scores(predicted, truth, spacing, structures, ignored, self.options)

    def known_scores(self, scores: Mapping[str, float | None], unannotated: Collection[str]) -> dict[str, float | None]:
        """See :func:`medmtl.tasks.segmentation.scores.without_labels`."""
        return without_labels(scores, unannotated, self.options)

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """See :func:`medmtl.tasks.segmentation.scores.estimates`."""
        return estimates(cases, self.options)

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """Of the mean Dice; see :func:`medmtl.metrics.expected_width.dice_width`."""
        return dice_width(len({patient for fold in folds for patient, _ in fold}))

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """Dice of every case, by label and region."""
        groups = tuple(
            (name, tuple(v for case in cases if (v := case.scores[f"dice/{name}"]) is not None))
            for name in (*self.options.labels, *self.options.regions)
        )
        return (StripFigure(f"{self.name}: Dice per case", groups),)
