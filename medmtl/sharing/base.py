"""What every sharing kind provides: which parameters tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from medmtl import networks
from medmtl.networks.cost import Towers
from medmtl.networks.encoder import Encoder, EncoderOptions
from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.norm import InstanceNorm, norms
from medmtl.networks.shape import NetworkShape


class SharingOptions(BaseModel):
    """Options that every sharing kind has.

    Attributes:
        kind: name of the kind.
    """

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
    Options: ClassVar[type[SharingOptions]]
    shares: ClassVar[bool] = True

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__()  # what a kind is made of is its own; the signature is what build_model relies on

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """How often the parts of the network stand there, for what a plan says of memory and time.

        Arguments as of the constructor.

        Raises:
            ValueError: if a network of this many stages cannot be shared as the options say.
        """
        return Towers(1, decoder_count(network, voxel))

    @classmethod
    def towers_run(
        cls,
        options: SharingOptions,
        shape: NetworkShape,
        network: EncoderOptions,
        voxel: Mapping[str, bool],
        tasks: Collection[str],
    ) -> Towers:
        """What a pass for some of its tasks runs, for the time and the maps of a view that others do not see.

        By default the network of these tasks alone.

        Args:
            options, shape, network, voxel: as of the constructor.
            tasks: those that the pass is for.
        """
        return cls.towers(options, shape, network, {name: own for name, own in voxel.items() if name in tasks})

    @classmethod
    def check(cls, options: SharingOptions, tasks: Sequence[str]) -> None:
        """The options fit the tasks of the file.

        Args:
            options: the kind's options.
            tasks: names of all tasks; those that read no image included.

        Raises:
            ValueError: if they do not; the message begins with the key below ``sharing`` and a colon.
        """

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

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """The shared parameters by part of the network, each in one part: where tasks meet, for a measurement."""
        return {"shared": self.shared_parameters()}

    @abstractmethod
    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters, outside the head, that only ``task`` reaches."""

    def reached_only_by(self, tasks: Sequence[str]) -> list[nn.Parameter]:
        """Parameters, outside the heads, that none but the named tasks reach."""
        return [parameter for task in tasks for parameter in self.own_parameters(task)]

    def encoder_norms(self) -> list[InstanceNorm]:
        """Norms that a second view at another spacing wants its own of; by default all.

        Those of everything that a case task's features come through and that a task of the first view reads as well.
        """
        return norms(self)

    def after_step(self, rate: float) -> None:
        """Hook after the optimiser's step, for what moves weights apart from its moments.

        Args:
            rate: the trunk's learning rate of that step.
        """


def make_encoder(shape: NetworkShape, network: EncoderOptions) -> Encoder:
    """An encoder of the configured kind, its weights drawn from torch's current random state.

    Args:
        shape: measurements of the network.
        network: options of the network.
    """
    return networks.kinds.get(network.kind)(shape)


def decoder_count(network: EncoderOptions, voxel: Mapping[str, bool]) -> int:
    """Decoders on one encoder: none without a voxel task, otherwise one, or one per task.

    Args:
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """
    count = sum(voxel.values())
    return count if network.decoder == "per_task" else min(count, 1)
