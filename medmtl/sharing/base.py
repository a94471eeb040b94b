"""What every sharing kind provides: which parameters tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
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
from medmtl.sharing.decoders import Decoders


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
        self._spec = {name: shape.spec(is_voxel) for name, is_voxel in voxel.items()}

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
    def spec(self) -> Mapping[str, FeatureSpec]:
        """What each task's head may rely on; by default what the network's shape gives any task."""
        return self._spec

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

    @abstractmethod
    def encoder_norms(self) -> list[InstanceNorm]:
        """Norms that a second view at another spacing wants its own of.

        Those of everything that a case task's features come through and that a task of the first view reads as well.
        """

    def after_step(self, rate: float) -> None:
        """Hook after the optimiser's step, for what moves weights apart from its moments.

        Args:
            rate: the trunk's learning rate of that step.
        """


class CommonEncoders(Sharing):
    """A kind whose tasks all read the same encoders, beside what is one task's own, and :class:`Decoders`.

    A kind sets ``common``, a list of modules that it also holds under names of its own, and ``decoders``.
    """

    common: Sequence[Encoder]
    decoders: Decoders

    def shared_parameters(self) -> list[nn.Parameter]:
        """The common encoders', and the decoder's where more than one task reads it."""
        return [*(p for encoder in self.common for p in encoder.parameters()), *self.decoders.shared()]

    def last_stage_parameters(self) -> list[nn.Parameter]:
        """Those of the common encoders' deepest stages."""
        return [p for encoder in self.common for p in encoder.stages[-1].parameters()]

    def encoder_norms(self) -> list[InstanceNorm]:
        """The common encoders'; what is one task's own sees its view alone."""
        return [norm for encoder in self.common for norm in norms(encoder)]


def make_encoder(shape: NetworkShape, network: EncoderOptions) -> Encoder:
    """An encoder of the configured kind, its weights drawn from torch's current random state.

    Args:
        shape: measurements of the network.
        network: options of the network.
    """
    return networks.kinds.get(network.kind)(shape)


def encoder_copies(shape: NetworkShape, network: EncoderOptions, tasks: Iterable[str]) -> nn.ModuleDict:
    """``NAME_encoder`` -> an encoder, for each task; all are equal.

    Args:
        shape: measurements of the network.
        network: options of the network.
        tasks: their names.
    """
    drawn = make_encoder(shape, network)
    return nn.ModuleDict({f"{name}_encoder": deepcopy(drawn) for name in tasks})


def parameters_of(parts: nn.ModuleDict, key: str) -> list[nn.Parameter]:
    """Those of one of the parts; none without it, as for a task that another network of the model answers.

    Args:
        parts: by key.
        key: of the part.
    """
    return list(parts[key].parameters()) if key in parts else []


def decoder_count(network: EncoderOptions, voxel: Mapping[str, bool]) -> int:
    """Decoders on one encoder: none without a voxel task, otherwise one, or one per task.

    Args:
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """
    count = sum(voxel.values())
    return count if network.decoder == "per_task" else min(count, 1)
