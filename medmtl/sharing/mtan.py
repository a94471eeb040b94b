"""Multi-task attention: one encoder, and per task a mask on every map of it.

Liu et al. 2019, https://arxiv.org/abs/1803.10704. A task's masked map of one stage is read by its mask of the next::

    m_s = 2 sigmoid(V relu(U x_s + F y_(s-1))),    y_s = m_s * x_s,    U, F, V convolutions of one voxel, F strided.

It differs from the paper in what masks read (the stage's map alone, not also the first of its two convolutions), in
their width (a quarter of the channels), in the convolution and pooling between stages (F), in the factor 2 with V = 0
at the start, where all masks are 1, and in the decoder, whose maps are not masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from medmtl.networks.cost import Towers
from medmtl.networks.encoder import EncoderOptions
from medmtl.networks.features import Features
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import CommonEncoders, SharingOptions, decoder_count, make_encoder, parameters_of
from medmtl.sharing.decoders import Decoders, Maps, decoder_names

NARROWER = 4  # channels of a map for one inside its mask


class Mtan(CommonEncoders):
    """One encoder, and per task and stage an attention mask on what the task reads.

    A shared decoder is run once per voxel task, because each reads its own maps.

    Cost against ``hard``: six tenths of the square of a stage's channels in parameters per task and stage, a few
    percent; four maps or so per stage and task, as many as the encoder itself keeps; and a pass through the decoder
    per voxel task.

    Args:
        options: no options of its own.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "mtan"
    Options = SharingOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        self.encoder = make_encoder(shape, network)
        self.common = [self.encoder]
        self.decoders = Decoders(shape, decoder_names(voxel, network.decoder == "per_task"))
        self.attention = nn.ModuleDict({f"{name}_attention": Attention(shape) for name in voxel})

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """One encoder, the masks, and a pass through a decoder per voxel task."""
        decoders, tasks = decoder_count(network, voxel), len(voxel)
        reruns = sum(voxel.values()) - decoders
        return Towers(1, decoders, reruns=reruns, beside_maps=4.5 * tasks, beside_weights=0.625 * tasks)

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through the encoder, and one through the masks and the decoder of each named task."""
        maps = self.encoder(image_BCDHW)
        return self.decoders.decode({name: self.attention[f"{name}_attention"](maps) for name in tasks})

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Its masks, and those of a decoder that only this task reads."""
        return [*parameters_of(self.attention, f"{task}_attention"), *self.decoders.own(task)]


class Attention(nn.Module):
    """The masks of one task.

    Args:
        shape: measurements of the network.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        inner = [max(1, channels // NARROWER) for channels in shape.channels]
        self.read = nn.ModuleList(
            nn.Conv3d(channels, narrow, 1) for channels, narrow in zip(shape.channels, inner, strict=True)
        )
        self.carry = nn.ModuleList(
            nn.Conv3d(before, narrow, 1, stride=stride, bias=False)
            for before, narrow, stride in zip(shape.channels[:-1], inner[1:], shape.strides[1:], strict=True)
        )
        self.mask = nn.ModuleList(
            nn.Conv3d(narrow, channels, 1) for narrow, channels in zip(inner, shape.channels, strict=True)
        )
        for convolution in self.mask:
            nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, maps: Maps) -> Maps:
        """Masked maps, each of the same shape.

        Args:
            maps: of the encoder, finest first.
        """
        masked: list[torch.Tensor] = []
        for index, level in enumerate(maps):
            read = self.read[index](level)
            if masked:
                read = read + self.carry[index - 1](masked[-1])
            mask = torch.sigmoid(self.mask[index](functional.relu(read)))
            masked.append(level * (2 * mask))  # in the level's memory format
        return tuple(masked)
