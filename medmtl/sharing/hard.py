"""Hard sharing: one encoder for every task.

Caruana 1997, https://doi.org/10.1023/A:1007379606734. Voxel tasks also share one decoder, which is two thirds of the
cost, unless ``network.decoder: per_task`` gives each its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.encoder import EncoderOptions
from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.norm import InstanceNorm, norms
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import Sharing, SharingOptions, make_encoder


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
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        self.encoder = make_encoder(shape, network)
        # suffixed, because a module's own attributes, such as ``type``, cannot be keys, and tasks may be called so
        self._decoder_of = {
            name: f"{name}_decoder" if network.decoder == "per_task" else "decoder"
            for name, is_voxel in voxel.items()
            if is_voxel
        }
        self.decoders = nn.ModuleDict({key: UnetDecoder(shape) for key in dict.fromkeys(self._decoder_of.values())})
        self._spec = {name: shape.spec(is_voxel) for name, is_voxel in voxel.items()}

    @property
    def spec(self) -> Mapping[str, FeatureSpec]:
        """What each task's head may rely on."""
        return self._spec

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through the encoder, and one through each decoder that the named tasks need."""
        maps = self.encoder(image_BCDHW)
        needed = dict.fromkeys(self._decoder_of[name] for name in tasks if name in self._decoder_of)
        decoded = {key: self.decoders[key](maps) for key in needed}
        return {name: Features(maps, decoded.get(self._decoder_of.get(name, ""), ())) for name in tasks}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's, and the decoder's where more than one task reads it."""
        shared = list(self.encoder.parameters())
        for key, decoder in self.decoders.items():
            if len(self._readers(key)) > 1:
                shared += decoder.parameters()
        return shared

    def last_stage_parameters(self) -> list[nn.Parameter]:
        """Those of the encoder's deepest stage."""
        return list(self.encoder.stages[-1].parameters())

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Those of a decoder that only this task reads."""
        key = self._decoder_of.get(task)
        return list(self.decoders[key].parameters()) if key and self._readers(key) == [task] else []

    def encoder_norms(self) -> list[InstanceNorm]:
        """The encoder's."""
        return norms(self.encoder)

    def _readers(self, decoder: str) -> list[str]:
        return [name for name, key in self._decoder_of.items() if key == decoder]
