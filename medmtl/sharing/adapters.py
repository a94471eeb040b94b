"""Adapters: one trunk for all tasks, and a small part per task that adapts its maps.

Residual adapters: Rebuffi et al. 2017, https://arxiv.org/abs/1705.08045. FiLM: Perez et al. 2018,
https://arxiv.org/abs/1709.07871. In both papers the adapted map also goes into the next stage. Here it does not: then
the trunk would have to be run once per task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from medmtl.networks.cost import Towers
from medmtl.networks.encoder import EncoderOptions
from medmtl.networks.features import Features
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import CommonEncoders, SharingOptions, decoder_count, make_encoder, parameters_of
from medmtl.sharing.decoders import Decoders, decoder_names


class AdapterOptions(SharingOptions):
    """Options of adapters.

    Attributes:
        adapter: ``residual`` adds a convolution of one voxel, x + W x; ``film`` scales and shifts channels,
            (1 + g) x + b.
    """

    adapter: Literal["residual", "film"] = "residual"


class Adapters(CommonEncoders):
    """One encoder, and per task and stage an adapter of what the task reads.

    All adapters start at nothing, and so the model as ``hard``. A shared decoder is run once per voxel task, because
    each reads its own maps.

    Cost against ``hard``: of ``residual`` the square of a stage's channels in parameters per task and stage, a few
    percent, of ``film`` next to none; about one map per stage and task; and a pass through the decoder per voxel task.

    Args:
        options: the form of the adapters.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "adapters"
    Options = AdapterOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        assert isinstance(options, AdapterOptions)
        self.encoder = make_encoder(shape, network)
        self.common = [self.encoder]
        self.decoders = Decoders(shape, decoder_names(voxel, network.decoder == "per_task"))
        form = ADAPTERS[options.adapter]
        self.adapters = nn.ModuleDict(
            {f"{name}_adapters": nn.ModuleList(form(channels) for channels in shape.channels) for name in voxel}
        )

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """One encoder, the adapted maps, and a pass through a decoder per voxel task."""
        assert isinstance(options, AdapterOptions)
        decoders = decoder_count(network, voxel)
        weights = len(voxel) if options.adapter == "residual" else 0
        return Towers(
            1, decoders, reruns=sum(voxel.values()) - decoders, beside_maps=1.5 * len(voxel), beside_weights=weights
        )

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through the encoder, and one through the adapters and the decoder of each named task."""
        maps = self.encoder(image_BCDHW)
        return self.decoders.decode(
            {
                name: tuple(
                    adapter(level)
                    for adapter, level in zip(self.adapters[f"{name}_adapters"].children(), maps, strict=True)
                )
                for name in tasks
            }
        )

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Its adapters, and those of a decoder that only this task reads."""
        return [*parameters_of(self.adapters, f"{task}_adapters"), *self.decoders.own(task)]


class Residual(nn.Module):
    """x + W x, a convolution of one voxel that starts at zero.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.utils.skip_init(nn.Conv3d, channels, channels, 1, bias=False)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.convolution.weight)

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """The adapted map, of the same shape."""
        adapted: torch.Tensor = map_BCDHW + self.convolution(map_BCDHW)
        return adapted


class Film(nn.Module):
    """(1 + g) x + b with numbers g and b per channel, which start at zero.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """The adapted map, of the same shape and type."""
        scale, shift = (p.to(map_BCDHW.dtype).view(1, -1, 1, 1, 1) for p in (1 + self.scale, self.shift))
        return map_BCDHW * scale + shift


ADAPTERS: Mapping[str, type[Residual] | type[Film]] = {"residual": Residual, "film": Film}
