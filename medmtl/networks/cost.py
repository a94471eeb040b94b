"""What a network costs, by arithmetic: parameters, and multiplications of one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from medmtl import networks
from medmtl.networks.encoder import Convolution
from medmtl.networks.shape import NetworkShape


@dataclass(frozen=True)
class Towers:
    """What a network consists of, as its cost sees it.

    Attributes:
        encoders: encoders that stand side by side.
        decoders: decoders on them.
        common: the finest stages that all encoders have in common, which stand once.
        reruns: passes through decoders beyond one each, where a decoder reads other maps for each task.
        beside_maps: further maps of every encoder stage that a step keeps, such as mixed ones.
        beside_weights: further weights of every stage, in squares of its channels, such as a convolution of one voxel.
    """

    encoders: int = 1
    decoders: int = 0
    common: int = 0
    reruns: int = 0
    beside_maps: float = 0.0
    beside_weights: float = 0.0

    def copies(self, stage: int) -> int:
        """How often an encoder's stage stands there; the finest is 0."""
        return 1 if stage < self.common else self.encoders

    def without_decoders(self) -> Towers:
        """The same for samples that no decoder reads."""
        return replace(self, decoders=0, reruns=0)


def parameter_count(network: NetworkShape, towers: Towers) -> int:
    """Parameters of encoders and decoders; heads, which are under a hundredth, are left out.

    Args:
        network: measurements of the network.
        towers: how often its parts stand there.
    """
    return sum(layer.weights + 2 * layer.normalised for layer in _layers(network, towers, towers.decoders))


def forward_operations(network: NetworkShape, towers: Towers, shape: Sequence[int]) -> int:
    """Floating-point operations of one sample's pass through the convolutions; a multiplication and its sum are two.

    Args:
        network: measurements of the network.
        towers: how often its parts stand there.
        shape: voxels of the sample per axis.
    """
    voxels = stage_voxels(network, shape)
    passes = towers.decoders + towers.reruns
    return 2 * sum(layer.weights * voxels[layer.stage] for layer in _layers(network, towers, passes))


def stage_voxels(network: NetworkShape, shape: Sequence[int]) -> tuple[int, ...]:
    """Voxels of one sample's map at each stage, finest first."""
    return tuple(math.prod(shape) // math.prod(stride) for stride in network.cumulative_strides())


def _layers(network: NetworkShape, towers: Towers, decoders: int) -> Iterator[Convolution]:
    for layer in networks.kinds.get(network.kind).layers(network):
        yield from repeat(layer, towers.copies(layer.stage))
    for stage, channels in enumerate(network.channels):
        yield Convolution(round(towers.beside_weights * channels**2), stage, 0)
    yield from _decoder_layers(network, decoders)


def _decoder_layers(network: NetworkShape, decoders: int) -> Iterator[Convolution]:
    for stage in range(len(network.channels) - 1):
        here, deeper = network.channels[stage], network.channels[stage + 1]
        volume = math.prod(network.kernels[stage])
        for _ in range(decoders):
            # a transposed convolution whose kernel is its stride uses each weight once per voxel of its input
            yield Convolution(deeper * here * math.prod(network.strides[stage + 1]), stage + 1, 0)
            yield Convolution(2 * here * here * volume, stage, here)
            yield Convolution(here * here * volume, stage, here)
