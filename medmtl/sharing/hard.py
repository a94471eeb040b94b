"""Hard sharing: one encoder for every task.

Caruana 1997, https://doi.org/10.1023/A:1007379606734. Voxel tasks also share one decoder, which is two thirds of the cost,
unless ``network.decoder: per_task`` gives each its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetDecoder, UnetEncoder, UnetOptions
from medmtl.sharing.base import Sharing, SharingOptions

SHARED = "shared"


class Hard(Sharing):
    """One encoder, and one decoder or one per voxel task.

    Args:
        options: no options of its own.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "hard"
    Options = SharingOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: UnetOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        self.encoder = UnetEncoder(shape)
        voxel_tasks = [name for name, is_voxel in voxel.items() if is_voxel]
        self._decoder_of = {name: SHARED if network.decoder == "shared" else name for name in voxel_tasks}
        self.decoders = nn.ModuleDict({name: UnetDecoder(shape) for name in dict.fromkeys(self._decoder_of.values())})
        self._spec = {name: shape.spec(is_voxel) for name, is_voxel in voxel.items()}

    @property
    def spec(self) -> Mapping[str, FeatureSpec]:
        """What each task's head may rely on."""
        return self._spec

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through the encoder, and one through each decoder that the named tasks need."""
        maps = self.encoder(image_BCDHW)
        decoded: dict[str, tuple[torch.Tensor, ...]] = {}
        for name in tasks:
            decoder = self._decoder_of.get(name)
            if decoder is not None and decoder not in decoded:
                decoded[decoder] = self.decoders[decoder](maps)
        return {name: Features(maps, decoded.get(self._decoder_of.get(name, ""), ())) for name in tasks}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's, and the shared decoder's where more than one voxel task reads it."""
        shared = list(self.encoder.parameters())
        if SHARED in self.decoders and len(self._decoder_of) > 1:
            shared += list(self.decoders[SHARED].parameters())
        return shared

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """A decoder that only this task reads."""
        decoder = self._decoder_of.get(task)
        alone = decoder is not None and list(self._decoder_of.values()).count(decoder) == 1
        return list(self.decoders[decoder].parameters()) if alone and decoder is not None else []
