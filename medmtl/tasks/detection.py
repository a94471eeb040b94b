"""Detection: a box with a score around every lesion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.box_utils import non_max_suppression
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from medmtl.data.box_table import Frame
from medmtl.data.boxes import boxes_in
from medmtl.data.case import Case
from medmtl.losses.boxes import CODER, box_loss
from medmtl.metrics.detection import AP_IOUS, FROC_IOU, DetectedCase, average_precision, froc, froc_curve, hits
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.figures import Figure, FrocFigure
from medmtl.networks.box_head import BoxHead
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import CellError, ScoredCase, TaskOptions
from medmtl.tasks.box_task import SAME_LESION, BoxResult, BoxTask, Corners, FoundBox

MOST_LESIONS = 64  # of a sample; of more the largest count
MOST_BOXES = 100  # of an answer
CANDIDATES = 1000  # that are compared with each other
SHAPES = 3
LEAST_MM, LEAST_VOXELS = 0.1, 1.0

Size = Annotated[float, Field(ge=LEAST_MM, allow_inf_nan=False)]


class DetectionOptions(TaskOptions):
    """Options of a detection.

    Attributes:
        column: column of the label files, on the grid of the case's first image, of which every value above 0 is one
            lesion; or, with boxes, of the tables of boxes.
        components: every connected part of the foreground is one lesion instead, whatever its values.
        boxes: the column names tables of boxes in mm, and this is the frame of their coordinates: ras grows to the
            patient's right, front and head (NIfTI), lps to the left, back and head (DICOM, ITK).
        anchors: sizes [x, y, z] in mm that boxes start from; None takes three from the training fold's lesions.
        min_score: boxes of a lower score are left out.
    """

    column: str
    components: bool = False
    boxes: Frame | None = None
    anchors: tuple[tuple[Size, Size, Size], ...] | None = Field(None, min_length=1, max_length=9)
    min_score: float = Field(0.02, gt=0, lt=1)

    @model_validator(mode="after")
    def _tables_have_no_components(self) -> DetectionOptions:
        if self.boxes is not None and self.components:
            raise ValueError("boxes: a table has no connected parts; remove components, or boxes")
        return self


class Detection(BoxTask):
    """RetinaNet's anchors, matcher, box codes and losses on the maps of the shared decoder."""

    kind = "detection"
    Options = DetectionOptions
    options: DetectionOptions

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of label files, or of tables of boxes."""
        return (self.options.column,)

    @property
    def frame(self) -> Frame | None:
        """As in the options."""
        return self.options.boxes

    @property
    def parts_are_lesions(self) -> bool:
        """As in the options."""
        return self.options.components

    @property
    def channels(self) -> int:
        """As a segmentation of eight labels: a convolution on each map with anchors, mostly the second finest."""
        return 8

    def read(self, case: Case) -> Path | None:
        """The label file or the table, or None where the case has none."""
        return case.files.get(self.options.column)

    def fit(self, truths: Sequence[Any]) -> dict[str, Any]:
        """Anchor sizes: lesions in three groups of equal number by their volume, and the median size of each.

        The loss is left on its own scale, on which no answer at all costs about 1 to 2.

        Args:
            truths: per case the sizes of its lesions in mm, (n, 3).

        Raises:
            CellError: B106 if no case has a lesion.
        """
        size_N3 = np.concatenate(
            [np.asarray(truth, np.float64).reshape(-1, 3) for truth in truths] or [np.empty((0, 3))]
        )
        if not len(size_N3):
            found, fix = (
                f"{len(truths)} cases without a lesion",
                "name the column of the masks or boxes, or change the split",
            )
            raise CellError("B106", column=self.options.column, found=found, expected="a lesion", fix=fix)
        groups = np.array_split(size_N3[np.argsort(size_N3.prod(axis=1), kind="stable")], min(SHAPES, len(size_N3)))
        planned = [tuple(np.median(group, axis=0).tolist()) for group in groups]
        return {"anchors_mm": list(dict.fromkeys(self.options.anchors or planned)), "loss_scale": 1.0}

    def at_spacing(self, spacing: Sequence[float]) -> dict[str, Any]:
        """The working voxel size, by which anchors become voxels."""
        return {"spacing": list(spacing)}

    def encode(self, truth: Any) -> torch.Tensor:
        """A label array (D, H, W) -> boxes (64, 6) in its voxels, fp32; what is missing is 0, the smallest left out."""
        found = self.reference(np.asarray(truth))
        if len(found) > MOST_LESIONS:
            volume = (found[:, 3:] - found[:, :3]).prod(axis=1)
            found = found[np.sort(np.argsort(-volume, kind="stable")[:MOST_LESIONS])]
        boxes = torch.from_numpy(found.astype(np.float32))
        return functional.pad(boxes, (0, 0, 0, MOST_LESIONS - len(found)))

    def reference(self, label: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """See :func:`medmtl.data.boxes.boxes_in`."""
        return boxes_in(label, self.options.components)

    def head(self, spec: FeatureSpec) -> nn.Module:
        """See :class:`medmtl.networks.box_head.BoxHead`."""
        spacing, anchors = self.fitted["spacing"], self.fitted["anchors_mm"]
        return BoxHead(
            spec, [[max(LEAST_VOXELS, n / s) for n, s in zip(size, spacing, strict=True)] for size in anchors]
        )

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.boxes.box_loss`."""
        with torch.autocast(target.device.type, enabled=False):
            prediction, anchors = output
            return box_loss(prediction, anchors, target)

    def activate(self, output: Any) -> torch.Tensor:
        """The 100 best boxes (B, 100, 7) that do not stand for one lesion, fp32, in voxels of the sample."""
        prediction, anchors = output
        return torch.stack([self._found(*sample) for sample in zip(prediction.float(), anchors, strict=True)])

    def _found(self, value_N7: torch.Tensor, anchors_N7: torch.Tensor) -> torch.Tensor:
        if not bool(torch.isfinite(value_N7).all()):
            return torch.full((MOST_BOXES, 7), torch.nan, device=value_N7.device)
        with torch.autocast(value_N7.device.type, enabled=False):
            score, order = value_N7[:, 0].sigmoid().sort(descending=True, stable=True)
            order = order[:CANDIDATES][score[:CANDIDATES] >= self.options.min_score]
            box = CODER.decode_single(value_N7[order, 1:], anchors_N7[order, :6])
            kept = non_max_suppression(box, score[: len(order)], SAME_LESION, MOST_BOXES)
            found = torch.cat([box[kept], score[kept, None]], dim=1)
        return functional.pad(found, (0, 0, 0, MOST_BOXES - len(found)))

    def result(self, boxes: Sequence[FoundBox]) -> BoxResult:
        """The boxes from the highest score down, 100 at most."""
        kept = [box for box in boxes if box.score >= self.options.min_score]
        return BoxResult(boxes=tuple(sorted(kept, key=lambda box: -box.score)[:MOST_BOXES]))

    def box_scores(self, result: BoxResult, truth: Sequence[Corners]) -> dict[str, float | None]:
        """``found``, the lesions that a box of their own overlaps by 0.1 or more, and their share, ``sensitivity``."""
        case = _detected(result, truth, "", 0)
        found = float(hits(case.box_N6, case.score_N, case.truth_M6, FROC_IOU).sum())
        return {"found": found, "sensitivity": found / len(truth) if truth else None}

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """``froc`` first, which says what a reader would meet: false positives per case. Average precision, by COCO's
        rule at single overlaps and their mean, counts them per box.
        """
        detected = [_scored(case) for case in cases]
        found = {"froc": froc(detected), "map": average_precision(detected, AP_IOUS)}
        return found | {f"ap_iou{round(100 * iou)}": average_precision(detected, [iou]) for iou in (0.1, 0.3, 0.5)}

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """The FROC curve."""
        rates, sensitivities = froc_curve([_scored(case) for case in cases])
        return (FrocFigure(f"{self.name}: FROC", rates, sensitivities),)


def _scored(case: ScoredCase) -> DetectedCase:
    assert isinstance(case.result, BoxResult)
    return _detected(case.result, case.truth, case.patient, case.fold)


def _detected(result: BoxResult, truth: Sequence[Corners], patient: str, fold: int) -> DetectedCase:
    box = np.array([found.voxels for found in result.boxes], np.float64).reshape(-1, 6)
    score = np.array([found.score for found in result.boxes], np.float64)
    return DetectedCase(box, score, np.array(truth, np.float64).reshape(-1, 6), patient, fold)
