"""What the case kinds share whose head pools feature maps: how it pools, and under which mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from torch import nn

from medmtl.networks.features import FeatureSpec
from medmtl.networks.pooling import PooledHead
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import CaseTask, Names, Task, TaskOptions
from medmtl.tasks.voxel import LabelTask

PoolingName = Literal["mean_max", "mean", "gem", "attention"]


class PooledOptions(TaskOptions):
    """Options of a case task whose head pools feature maps.

    Attributes:
        pooling: of the three deepest feature maps: ``mean_max`` joins mean and maximum; ``mean`` is the mean alone;
            ``gem`` the generalised mean with a learned exponent, between the two; ``attention`` a mean whose weights
            are learned.
        guided_by: a task of this file with labels per voxel, or a list of such tasks; what is pooled under its
            predicted mask, and how large its labels are, then join. The mask does not learn from this task through it.
    """

    pooling: PoolingName = "mean_max"
    guided_by: Names = ()

    @model_validator(mode="after")
    def _there_is_something_to_pool(self) -> PooledOptions:
        if self.inputs == "covariates":
            if self.guided_by:
                raise ValueError(
                    f"guided_by: {', '.join(self.guided_by)} pools the image under a mask, and inputs: covariates "
                    "reads no image; remove guided_by, or set inputs: both"
                )
            if self.pooling != "mean_max":
                raise ValueError(
                    f"pooling: {self.pooling} is of the image, and inputs: covariates reads none; remove pooling, or "
                    "set inputs: both"
                )
        return self


class PooledTask(CaseTask):
    """A case task with a :class:`medmtl.networks.pooling.PooledHead`."""

    Options: ClassVar[type[PooledOptions]]
    options: PooledOptions

    def __init__(self, name: str, options: PooledOptions, fitted: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, options, fitted)
        self.guides = options.guided_by

    def resolve(self, others: Mapping[str, Task]) -> dict[str, Any]:
        """Nothing; the guides must be there and have masks."""
        key = f"tasks.{self.name}.guided_by"
        masks = [name for name, task in others.items() if isinstance(task, LabelTask)]
        known = f"tasks with labels per voxel: {', '.join(masks) or 'none'}"
        for guide, count in Counter(self.guides).items():
            if guide == self.name:
                raise ValueError(f"{key}: a task is not its own guide; {known}")
            if guide not in others:
                hint = did_you_mean(guide, masks)
                raise ValueError(f"{key}: {guide!r} is no task of this file{f' ({hint})' if hint else ''}; {known}")
            if guide not in masks:
                raise ValueError(f"{key}: {guide!r} is a {others[guide].kind}, which has no mask; {known}")
            if count > 1:
                raise ValueError(f"{key}: {guide!r} is named {count} times; name it once")
        return super().resolve(others)

    def pooled_head(self, spec: FeatureSpec, bias: Sequence[float]) -> nn.Module:
        """The head with the configured pooling.

        Args:
            spec: what it may rely on.
            bias: the first output; its length is the number of outputs.
        """
        return PooledHead(spec, bias, self.options.pooling)
