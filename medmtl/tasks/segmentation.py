"""Segmentation: one label, or a set of overlapping regions, per voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, StrictInt, model_validator
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.losses.deep_supervision import deep_supervision
from medmtl.losses.dice_bce import dice_bce_loss
from medmtl.losses.dice_ce import dice_ce_loss
from medmtl.metrics.estimate import Better, Estimate
from medmtl.metrics.expected_width import ExpectedWidth, dice_width
from medmtl.metrics.figures import Figure, StripFigure
from medmtl.metrics.intervals import mean_estimate
from medmtl.metrics.overlap import dice, outcome, volume_ml
from medmtl.metrics.surface import surface_scores
from medmtl.networks.features import Features, FeatureSpec
from medmtl.tasks.base import Cell, Result, ScoredCase, Task, TaskOptions, VoxelTask

LabelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class SegmentationOptions(TaskOptions):
    """Options of a segmentation.

    Attributes:
        column: column of the label files.
        labels: label name -> value in the file; 0 is the background and is not named.
        regions: region name -> labels it consists of; scored beside the labels, or trained.
        train: ``labels`` trains one class per label (softmax); ``regions`` one sigmoid channel per region, and masks
            are composed in the declared order, later regions overwriting earlier ones; see :meth:`region_values`.
        tolerance_mm: of the normalised surface Dice.
    """

    column: str
    labels: dict[LabelName, Annotated[StrictInt, Field(gt=0, lt=65536)]] = Field(min_length=1)
    regions: dict[LabelName, tuple[LabelName, ...]] = Field(default_factory=dict)
    train: Literal["labels", "regions"] = "labels"
    tolerance_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> SegmentationOptions:
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two labels have one value")
        for name, members in self.regions.items():
            unknown = [member for member in members if member not in self.labels]
            if unknown or not members:
                raise ValueError(f"region {name!r} must list declared labels; found {list(members)}")
            if name in self.labels:
                raise ValueError(f"{name!r} is a label and a region")
        if self.train == "regions":
            self.region_values()
        return self

    def region_values(self) -> tuple[int, ...]:
        """The value that each trained region writes: of the one label that it holds and no later region holds.

        As nnU-Net's ``regions_class_order``, but derived: with ``{whole: [oedema, core, hot], tumour: [core, hot],
        hot_only: [hot]}`` the regions write oedema, core and hot. Composing a reference's own regions gives the
        reference, because every label must be in a region.

        Raises:
            ValueError: if that is not exactly one label, or a label is in no region.
        """
        if not self.regions:
            raise ValueError("train: regions needs regions")
        values = []
        members = list(self.regions.values())
        for index, name in enumerate(self.regions):
            later = {label for region in members[index + 1 :] for label in region}
            own = [label for label in members[index] if label not in later]
            if len(own) != 1:
                raise ValueError(
                    f"region {name!r} must hold exactly one label that no later region holds, found {own}; "
                    "order regions from large to small"
                )
            values.append(self.labels[own[0]])
        missing = set(self.labels) - {label for region in members for label in region}
        if missing:
            raise ValueError(f"train: regions, but no region holds {sorted(missing)}")
        return tuple(values)


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


class _VoxelHead(nn.Module):
    """A 1x1x1 convolution on each decoder map, finest first; in evaluation on the finest only."""

    def __init__(self, spec: FeatureSpec, outputs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv3d(channels, outputs, 1) for channels in spec.decoder_channels)

    def forward(self, features: Features) -> tuple[torch.Tensor, ...]:
        count = len(self.levels) if self.training else 1
        return tuple(self.levels[i](features.decoder[i]) for i in range(count))


class Segmentation(VoxelTask):
    """Dice and cross-entropy on voxels; see :mod:`medmtl.losses.dice_ce` and :mod:`medmtl.losses.dice_bce`."""

    kind = "segmentation"
    Options = SegmentationOptions
    options: SegmentationOptions

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of label files."""
        return (self.options.column,)

    def read(self, case: Case) -> Path | None:
        """The label file, or None where the case has none."""
        return case.files.get(self.options.column)

    def fit(self, truths: Sequence[Any]) -> dict[str, Any]:
        """Nothing to learn; Dice + cross-entropy is on a scale of 1 as it is."""
        return {"loss_scale": 1.0}

    def legal_values(self) -> frozenset[int]:
        """Background and declared labels."""
        return frozenset({0, *self.options.labels.values()})

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

    def translated(self, array: npt.NDArray[Any], source: VoxelTask) -> npt.NDArray[Any]:
        """The values of the labels of the same name; what ``source`` does not declare is background."""
        found = np.zeros(array.shape, np.int32)
        for label, value in self.options.labels.items():
            found[np.isin(array, source.values_of(label))] = value
        return found

    def encode(self, truth: Any) -> torch.Tensor:
        """Label values (D, H, W) -> class indices: 0 background, then labels in the declared order.

        uint8, or int32 for more than 255 labels. The array holds legal values only.
        """
        values = list(self.options.labels.values())
        table = np.zeros(max(values) + 1, np.uint8 if len(values) < 256 else np.int32)
        table[values] = np.arange(1, len(values) + 1)
        return torch.from_numpy(table[np.asarray(truth)])

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Class channels including the background, or one channel per region."""
        regions = self.options.train == "regions"
        return _VoxelHead(spec, len(self.options.regions) if regions else len(self.options.labels) + 1)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Dice + cross-entropy at every supervised level, shape (B,)."""
        with torch.autocast(target.device.type, enabled=False):
            if self.options.train == "labels":
                return deep_supervision(dice_ce_loss, output, target)
            membership_KR = self._membership().to(target.device)
            return deep_supervision(
                lambda logits, classes: dice_bce_loss(logits, classes, membership_KR), output, target
            )

    def _membership(self) -> torch.Tensor:
        rows = [[False] * len(self.options.regions)]
        rows += [[label in region for region in self.options.regions.values()] for label in self.options.labels]
        return torch.tensor(rows)

    def activate(self, output: Any) -> torch.Tensor:
        """Softmax over classes, or sigmoid per region, of the finest level."""
        logits: torch.Tensor = output[0].float()
        return logits.softmax(1) if self.options.train == "labels" else logits.sigmoid()

    def decide(self, probability_KDHW: torch.Tensor) -> torch.Tensor:
        """The likeliest label, or the last region above one half."""
        if self.options.train == "labels":
            values = torch.tensor([0, *self.options.labels.values()], device=probability_KDHW.device)
            return self._narrow(values[probability_KDHW.argmax(0)])
        decided = torch.zeros(probability_KDHW.shape[1:], dtype=torch.int64, device=probability_KDHW.device)
        for channel, value in zip(probability_KDHW, self.options.region_values(), strict=True):
            decided[channel > 0.5] = value
        return self._narrow(decided)

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
        """Every metric of every label and region, then the means over what is trained.

        Both empty: no Dice and no distances. One empty: Dice 0, HD95 the image's diagonal, NSD 0.
        """
        scores: dict[str, float | None] = {}
        for name in (*self.options.labels, *self.options.regions):
            values = list(self.values_of(name))
            found, reference = np.isin(predicted, values), np.isin(truth, values)
            surface = surface_scores(found, reference, spacing, self.options.tolerance_mm)
            kind = outcome(found, reference)
            scores |= {
                f"dice/{name}": dice(found, reference),
                f"hd95_mm/{name}": surface.hd95_mm,
                f"{self._nsd}/{name}": surface.nsd,
                f"volume_error_ml/{name}": volume_ml(found, spacing) - volume_ml(reference, spacing),
                f"missed/{name}": float(kind == "missed"),
                f"false/{name}": float(kind == "false"),
                f"true_negative/{name}": float(kind == "true_negative"),
            }
        means: dict[str, float | None] = {}
        for metric in self._metrics():
            known = [value for name in self._trained() if (value := scores[f"{metric}/{name}"]) is not None]
            means[metric] = float(np.mean(known)) if known else None
        return {**means, **scores}

    @property
    def _nsd(self) -> str:
        return f"nsd_{self.options.tolerance_mm:g}mm"

    def _trained(self) -> tuple[str, ...]:
        return tuple(self.options.regions if self.options.train == "regions" else self.options.labels)

    def _metrics(self) -> dict[str, tuple[Better, str | None]]:
        return {
            "dice": ("higher", None),
            "hd95_mm": ("lower", "mm"),
            self._nsd: ("higher", None),
            "volume_error_ml": ("zero", "ml"),
        }

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """Means over cases with BCa intervals over patients, and how many masks were missed or false."""
        patients = [case.patient for case in cases]
        estimates: dict[str, Estimate] = {}
        for name in ("", *self.options.labels, *self.options.regions):
            members = (name,) if name else self._trained()
            counts = {
                f"n_{kind}": int(sum((case.scores[f"{kind}/{member}"] or 0) for case in cases for member in members))
                for kind in ("missed", "false", "true_negative")
            }
            for metric, (better, unit) in self._metrics().items():
                key = f"{metric}/{name}" if name else metric
                estimates[key] = mean_estimate([case.scores[key] for case in cases], patients, better, unit, counts)
        return estimates

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
