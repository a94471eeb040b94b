"""What a network costs, by arithmetic: parameters, and multiplications of one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from medmtl import networks
from medmtl.networks.encoder import Convolution
from medmtl.networks.shape import NetworkShape


def parameter_count(network: NetworkShape, decoders: int) -> int:
    """Parameters of an encoder and its decoders; heads, which are under a hundredth, are left out.

    Args:
        network: measurements of the network.
        decoders: how many stand on the encoder.
    """
    return sum(layer.weights + 2 * layer.normalised for layer in _layers(network, decoders))


def forward_operations(network: NetworkShape, decoders: int, shape: Sequence[int]) -> int:
    """Floating-point operations of one sample's pass through the convolutions; a multiplication and its sum are two.

    Args:
        network: measurements of the network.
        decoders: how many stand on the encoder.
        shape: voxels of the sample per axis.
    """
    voxels = stage_voxels(network, shape)
    return 2 * sum(layer.weights * voxels[layer.stage] for layer in _layers(network, decoders))


def stage_voxels(network: NetworkShape, shape: Sequence[int]) -> tuple[int, ...]:
    """Voxels of one sample's map at each stage, finest first."""
    return tuple(math.prod(shape) // math.prod(stride) for stride in network.cumulative_strides())


def _layers(network: NetworkShape, decoders: int) -> Iterator[Convolution]:
    yield from networks.kinds.get(network.kind).layers(network)
    for stage in range(len(network.channels) - 1):
        here, deeper = network.channels[stage], network.channels[stage + 1]
        volume = math.prod(network.kernels[stage])
        for _ in range(decoders):
            # a transposed convolution whose kernel is its stride uses each weight once per voxel of its input
            yield Convolution(deeper * here * math.prod(network.strides[stage + 1]), stage + 1, 0)
            yield Convolution(2 * here * here * volume, stage, here)
            yield Convolution(here * here * volume, stage, here)
