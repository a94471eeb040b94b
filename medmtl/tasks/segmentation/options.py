"""Options of a segmentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictInt, model_validator

from medmtl.tasks.base import TaskOptions
from medmtl.tasks.segmentation.annotation import MOST_LABELS
from medmtl.validation import Name

LabelValue = Annotated[StrictInt, Field(gt=0, lt=65536)]


def _not_the_background(value: Any) -> Any:
    if value == 0 and type(value) is int:
        raise ValueError("0 is the background and is not named; remove it")
    return value


NamedValue = Annotated[LabelValue, BeforeValidator(_not_the_background)]

BETA = 0.7  # see medmtl.losses.tversky


class SegmentationOptions(TaskOptions):
    """Options of a segmentation.

    Attributes:
        column: column of the label files.
        labels: label name -> value in the file; 0 is the background and is not named.
        regions: region name -> labels it consists of; scored beside the labels, or trained.
        train: ``labels`` trains one class per label (softmax); ``regions`` one sigmoid channel per region, and masks
            are composed in the declared order, later regions overwriting earlier ones; see :meth:`region_values`.
        ignore: value of voxels that nobody labelled, such as 255: they carry no loss and are not scored.
        annotated: column that names the labels which were annotated in a case, separated by a space or a semicolon; an
            empty cell stands for all. Voxels of the others may lie in the case's background: predicting them there
            costs nothing, and they are not scored.
        loss: dice_ce adds soft Dice and cross-entropy. dice_focal adds soft Dice and the focal loss (gamma 2), which
            dwells on the voxels that are still wrong. tversky is Dice with a price of its own for missed voxels.
        beta: of loss tversky, the price of a missed voxel, None for 0.7; a false one costs 1 - beta. Higher finds more
            of small lesions, and more that is none.
        lesions: score components one by one as well: lesions found, and false ones. For structures that come in any
            number; a lesion is found where a predicted one overlaps it by more than a tenth (intersection over union).
        tolerance_mm: of the normalised surface Dice.
    """

    column: str
    labels: dict[Name, NamedValue] = Field(min_length=1)
    regions: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    train: Literal["labels", "regions"] = "labels"
    ignore: LabelValue | None = None
    annotated: str | None = None
    loss: Literal["dice_ce", "dice_focal", "tversky"] = "dice_ce"
    beta: Annotated[float, Field(gt=0, lt=1)] | None = None
    lesions: bool = False
    tolerance_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> SegmentationOptions:
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two labels have one value")
        if self.ignore in self.labels.values():
            raise ValueError(f"ignore: {self.ignore} is the value of a label")
        if self.annotated is not None and self.annotated == self.column:
            raise ValueError(f"annotated: {self.annotated!r} is the column of the label files; name another")
        if self.annotated is not None and len(self.labels) > MOST_LABELS:
            raise ValueError(f"annotated: at most {MOST_LABELS} labels, and there are {len(self.labels)}")
        if self.beta is not None and self.loss != "tversky":
            raise ValueError(f"beta belongs to loss: tversky, and the loss is {self.loss}")
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
