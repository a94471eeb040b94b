"""The decoders of the voxel tasks: one for all, or one per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.features import Features
from medmtl.networks.shape import NetworkShape

Maps = tuple[torch.Tensor, ...]


class Decoders(nn.ModuleDict):
    """The decoders by name, and which task reads which.

    Args:
        shape: measurements of the network.
        decoder_of: voxel task -> name of its decoder; see :func:`decoder_names`.
    """

    def __init__(self, shape: NetworkShape, decoder_of: Mapping[str, str]) -> None:
        super().__init__({key: UnetDecoder(shape) for key in dict.fromkeys(decoder_of.values())})
        self._decoder_of = dict(decoder_of)

    def decode(self, maps: Mapping[str, Maps]) -> dict[str, Features]:
        """Features of the tasks that encoder maps are given for, in their order.

        Tasks with the same decoder and the very same maps share one pass.
        """
        done: dict[tuple[str, int], Maps] = {}
        for name, own in maps.items():
            if (key := self._decoder_of.get(name)) is not None and (key, id(own)) not in done:
                done[key, id(own)] = self[key](own)
        return {
            name: Features(own, done.get((self._decoder_of.get(name, ""), id(own)), ())) for name, own in maps.items()
        }

    def shared(self) -> list[nn.Parameter]:
        """Parameters of the decoders that several tasks read."""
        return [p for key in self if len(self.readers(key)) > 1 for p in self[key].parameters()]

    def own(self, task: str) -> list[nn.Parameter]:
        """Parameters of the decoder that only this task reads."""
        key = self._decoder_of.get(task)
        return list(self[key].parameters()) if key and self.readers(key) == [task] else []

    def readers(self, decoder: str) -> Sequence[str]:
        """Tasks that read a decoder, by its name."""
        return [name for name, key in self._decoder_of.items() if key == decoder]


def decoder_names(voxel: Mapping[str, bool], per_task: bool) -> dict[str, str]:
    """Voxel task -> name of its decoder.

    Args:
        voxel: task -> whether it is a voxel task.
        per_task: whether each has its own.
    """
    # suffixed, because a module's own attributes, such as ``type``, cannot be keys, and tasks may be called so
    return {name: f"{name}_decoder" if per_task else "decoder" for name, is_voxel in voxel.items() if is_voxel}


def decoder_copies(shape: NetworkShape, voxel: Mapping[str, bool]) -> Decoders:
    """A decoder per voxel task; all are equal.

    Args:
        shape: measurements of the network.
        voxel: task -> whether it is a voxel task.
    """
    decoders = Decoders(shape, decoder_names(voxel, per_task=True))
    for decoder in list(decoders.values())[1:]:
        decoder.load_state_dict(next(iter(decoders.values())).state_dict())
    return decoders
