"""Multi-gate mixture of experts: several encoders for all tasks, and per task a gate that mixes their maps.

Ma et al. 2018, https://doi.org/10.1145/3219819.3220007. An expert is a whole encoder, and a gate has one set of weights
for all stages; see :class:`medmtl.sharing.gate.Gate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from medmtl.networks.cost import Towers
from medmtl.networks.encoder import EncoderOptions
from medmtl.networks.features import Features
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import CommonEncoders, SharingOptions, decoder_count, make_encoder, parameters_of
from medmtl.sharing.decoders import Decoders, decoder_names
from medmtl.sharing.gate import Gate


class MmoeOptions(SharingOptions):
    """Options of the multi-gate mixture of experts.

    Attributes:
        experts: number of encoders.
    """

    experts: Annotated[int, Field(ge=2)] = 2


class Mmoe(CommonEncoders):
    """Several encoders for all tasks, drawn apart, mixed per task and image by a gate.

    A shared decoder is run once per voxel task, because each reads its own maps.

    Cost against ``hard``: parameters, memory and time of the encoder once per expert; about one map per stage and task
    for the mixtures; and a pass through the decoder per voxel task.

    Args:
        options: number of experts.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "mmoe"
    Options = MmoeOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        assert isinstance(options, MmoeOptions)
        self.common = [make_encoder(shape, network) for _ in range(options.experts)]
        self.experts = nn.ModuleList(self.common)
        self.decoders = Decoders(shape, decoder_names(voxel, network.decoder == "per_task"))
        self.gates = nn.ModuleDict({f"{name}_gate": Gate(shape.channels[-1], options.experts) for name in voxel})

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """The experts, the mixed maps, and a pass through a decoder per voxel task."""
        assert isinstance(options, MmoeOptions)
        decoders = decoder_count(network, voxel)
        return Towers(options.experts, decoders, reruns=sum(voxel.values()) - decoders, beside_maps=1.5 * len(voxel))

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through every expert, and one through the gate and the decoder of each named task."""
        maps = [expert(image_BCDHW) for expert in self.experts]
        return self.decoders.decode({name: self.gates[f"{name}_gate"](maps) for name in tasks})

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Its gate, and those of a decoder that only this task reads."""
        return [*parameters_of(self.gates, f"{task}_gate"), *self.decoders.own(task)]
