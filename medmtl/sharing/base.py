"""What every sharing kind provides: which parameters tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.norm import InstanceNorm, norms
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetOptions


class SharingOptions(BaseModel):
    """Options that every sharing kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str


class Sharing(nn.Module, ABC):
    """Image -> features per task.

    Args:
        options: the kind's options.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task, in the configured order.

    Attributes:
        shares: whether any parameter is one that more than one task can reach; a method on gradients needs some.
    """

    kind: ClassVar[str]
    shares: ClassVar[bool] = True
    Options: ClassVar[type[SharingOptions]]

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: UnetOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__()

    @property
    @abstractmethod
    def spec(self) -> Mapping[str, FeatureSpec]:
        """What each task's head may rely on."""

    @abstractmethod
    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """Features for the named tasks only; what only other tasks need is not run."""

    @abstractmethod
    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that more than one task can reach."""

    def last_stage_parameters(self) -> list[nn.Parameter]:
        """Of the shared parameters, those of an encoder's deepest stage: where a cheap look at gradients is taken."""
        return []

    @abstractmethod
    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters, outside the head, that only ``task`` reaches."""

    def encoder_norms(self) -> list[InstanceNorm]:
        """The norms of everything that a case task's features come through; by default all."""
        return norms(self)

    def after_step(self, rate: float) -> None:
        """Hook after the optimiser's step, for what moves weights apart from its moments.

        Args:
            rate: the trunk's learning rate of that step.
        """
