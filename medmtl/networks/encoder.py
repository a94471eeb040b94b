"""What every encoder kind provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from medmtl.networks.shape import NetworkShape


class EncoderOptions(BaseModel):
    """Options that every encoder kind has.

    Attributes:
        kind: of the encoder.
        decoder: one decoder ``shared`` by all voxel tasks, or one ``per_task``.
        deep_supervision: voxel heads read the three finest decoder maps in training instead of the finest one alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    decoder: Literal["shared", "per_task"] = "shared"
    deep_supervision: bool = True

    def measured(self, shape: NetworkShape) -> NetworkShape:
        """Planned measurements, completed by what these options decide."""
        return replace(shape, kind=self.kind)

    def as_in_nnunet(self, network: str, blocks: tuple[int, ...]) -> Self:
        """These options, completed by what an nnU-Net plan says.

        Args:
            network: nnU-Net's class.
            blocks: convolutions or blocks of each stage.

        Raises:
            ValueError: the plan's network is not this kind's.
        """
        raise ValueError(f"the plan has a {network}, and network.kind {self.kind} is no network of nnU-Net's")


@dataclass(frozen=True)
class Convolution:
    """One convolution without its bias, which these networks do not have.

    Attributes:
        weights: number of weights.
        stage: the stage at whose voxels each weight is used once.
        normalised: channels of the norms that belong to it, each with a weight and a bias; 0 where there is none.
    """

    weights: int
    stage: int
    normalised: int


class Encoder(nn.Module, ABC):
    """Image (B, C, D, H, W) -> one map per stage, finest first. A kind fills ``stages``.

    Args:
        shape: measurements of the network.
    """

    kind: ClassVar[str]
    Options: ClassVar[type[EncoderOptions]]

    stages: nn.ModuleList

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()  # what a kind is made of is its own; the signature is what make_encoder relies on

    @classmethod
    @abstractmethod
    def layers(cls, shape: NetworkShape) -> Iterator[Convolution]:
        """Every convolution, for the arithmetic of parameters and of time."""

    @classmethod
    @abstractmethod
    def maps_per_stage(cls, shape: NetworkShape) -> tuple[float, ...]:
        """Maps of each stage's size that a training step holds at once, finest first."""

    def forward(self, image_BCDHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All maps, finest first; stage i is (B, channels[i], D, H, W) / cumulative stride i."""
        current = channels_last(image_BCDHW)
        maps = []
        for stage in self.stages:
            current = stage(current)
            maps.append(current)
        return tuple(maps)


Blocks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""How many blocks each stage has, finest first."""


def chosen_blocks(wanted: Sequence[int], stages: int) -> tuple[int, ...]:
    """Blocks of each stage: as wanted, the last number for every deeper stage."""
    return tuple(wanted[min(stage, len(wanted) - 1)] for stage in range(stages))


def channels_last(image_BCDHW: torch.Tensor) -> torch.Tensor:
    """An image as the first stage reads it: on a CPU, whose convolutions need no reordering then, channels last."""
    if image_BCDHW.device.type != "cpu":
        return image_BCDHW
    # A copy, because ``contiguous`` leaves the strides of a one-channel image as they are, and the first convolution
    # would not recognise them.
    return torch.empty_like(image_BCDHW, memory_format=torch.channels_last_3d).copy_(image_BCDHW)
