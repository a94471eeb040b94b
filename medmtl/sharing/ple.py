"""Customised gate control: experts for all tasks, experts of each task alone, and per task a gate over both.

Tang et al. 2020, https://doi.org/10.1145/3383313.3412236: the one level of "progressive layered extraction" that the
paper calls CGC. With several levels the shared experts read every task's own ones, so that a task that is absent would
have to be run, and would be trained. An expert is a whole encoder; see :class:`medmtl.sharing.gate.Gate`.
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
from medmtl.sharing.decoders import Decoders, Maps, decoder_names
from medmtl.sharing.gate import Gate


class PleOptions(SharingOptions):
    """Options of customised gate control.

    Attributes:
        shared: number of encoders for all tasks.
        own: number of encoders of each task alone.
    """

    shared: Annotated[int, Field(ge=1)] = 1
    own: Annotated[int, Field(ge=1)] = 1


class Ple(CommonEncoders):
    """Encoders for all tasks and encoders of each task alone, drawn apart, mixed per task and image by a gate.

    A shared decoder is run once per voxel task, because each reads its own maps.

    Cost against ``hard``: parameters, memory and time of the encoder ``shared + own`` x tasks times; about one map per
    stage and task for the mixtures; and a pass through the decoder per voxel task.

    Args:
        options: numbers of experts.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "ple"
    Options = PleOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        assert isinstance(options, PleOptions)
        self.common = [make_encoder(shape, network) for _ in range(options.shared)]
        self.experts = nn.ModuleList(self.common)
        self.own = nn.ModuleDict(
            {
                f"{name}_experts": nn.ModuleList(make_encoder(shape, network) for _ in range(options.own))
                for name in voxel
            }
        )
        self.decoders = Decoders(shape, decoder_names(voxel, network.decoder == "per_task"))
        count = options.shared + options.own
        self.gates = nn.ModuleDict({f"{name}_gate": Gate(shape.channels[-1], count) for name in voxel})

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """The experts, the mixed maps, and a pass through a decoder per voxel task."""
        assert isinstance(options, PleOptions)
        decoders, experts = decoder_count(network, voxel), options.shared + options.own * len(voxel)
        return Towers(experts, decoders, reruns=sum(voxel.values()) - decoders, beside_maps=2.0 * len(voxel))

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through the shared experts, and one through what else each named task has."""
        common: list[Maps] = [expert(image_BCDHW) for expert in self.experts]
        mixed = {}
        for name in tasks:
            own = [expert(image_BCDHW) for expert in self.own[f"{name}_experts"].children()]
            mixed[name] = self.gates[f"{name}_gate"]([*common, *own])
        return self.decoders.decode(mixed)

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Its experts and gate, and those of a decoder that only this task reads."""
        alone = [*parameters_of(self.own, f"{task}_experts"), *parameters_of(self.gates, f"{task}_gate")]
        return [*alone, *self.decoders.own(task)]
