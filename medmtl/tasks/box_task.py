"""What a task provides whose answer is a list of boxes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.data.box_table import Frame
from medmtl.tasks.base import Cell, Result, Task

SAME_LESION = 0.2  # intersection over union above which two boxes are one lesion's; MONAI's LUNA16 example has 0.22

Corners = tuple[float, ...]


@dataclass(frozen=True)
class FoundBox:
    """A box with its score.

    Attributes:
        voxels: lower and upper corners along the axes of the array in the file of the case's first image; voxel i spans
            i to i + 1.
        mm: the box's corners in the scanner's frame by that file's affine (RAS+: x to the patient's right, y to the
            front, z to the head); of an oblique scan the smallest box along that frame's axes that holds it.
        score: 0 to 1.
    """

    voxels: Corners
    mm: Corners
    score: float

    def row(self) -> tuple[float, ...]:
        """As 13 numbers."""
        return (*self.voxels, *self.mm, self.score)

    @staticmethod
    def of(row: Sequence[float]) -> FoundBox:
        """The inverse of :meth:`row`."""
        return FoundBox(tuple(row[:6]), tuple(row[6:12]), row[12])


@dataclass(frozen=True)
class BoxResult(Result):
    """The boxes of a case.

    Attributes:
        boxes: the highest score first.
    """

    boxes: tuple[FoundBox, ...] = ()

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME_boxes``, their number, and ``NAME_score``, the highest score."""
        return {f"{name}_boxes": len(self.boxes), f"{name}_score": self.boxes[0].score if self.boxes else None}


class BoxTask(Task):
    """A task with boxes for an answer, that learns from label files as a voxel task does, or from tables of boxes.

    ``encode`` takes a label array after its augmentation and gives fp32 boxes of a fixed number (M, 6) in voxels, of
    which rows without volume are none; so whatever moves the image moves the boxes. :meth:`fit` gets no files but, per
    labelled case, the sizes of its lesions in mm (n, 3). ``activate`` gives (B, M, 7): corners in voxels of the sample
    and a score, with a score of 0 for none. Boxes cannot be averaged: those of windows and folds are merged by
    :mod:`medmtl.inference.boxes`.
    """

    voxel = True

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`BoxResult.cells`."""
        return (f"{self.name}_boxes", f"{self.name}_score")

    @property
    def frame(self) -> Frame | None:
        """Frame of the coordinates where its column names tables of boxes; None where it names label files.

        Boxes of a table are drawn into a label array, see :func:`medmtl.data.boxes.painted`, of which ``encode`` and
        ``reference`` take every value for a lesion.
        """
        return None

    @property
    def parts_are_lesions(self) -> bool:
        """Whether each connected part of a label file is a lesion, and not each value."""
        return False

    @property
    @abstractmethod
    def channels(self) -> int:
        """What its output costs at full resolution, in channels, for the prediction of memory."""

    @abstractmethod
    def at_spacing(self, spacing: Sequence[float]) -> dict[str, Any]:
        """What it must know of the working voxel size in mm, JSON-able; joins what :meth:`fit` returned."""

    @abstractmethod
    def reference(self, label: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The boxes (n, 6) of a label array, in its voxels."""

    @abstractmethod
    def result(self, boxes: Sequence[FoundBox]) -> BoxResult:
        """The answer for a case from the boxes of all windows and folds."""

    @abstractmethod
    def box_scores(self, result: BoxResult, truth: Sequence[Corners]) -> dict[str, float | None]:
        """Per-case metrics against reference boxes in the same voxels."""
