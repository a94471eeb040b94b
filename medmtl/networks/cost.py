"""What a network costs, by arithmetic: parameters, and multiplications of one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medmtl.networks.shape import NetworkShape


@dataclass(frozen=True)
class _Convolution:
    """One convolution without its bias, which these networks do not have.

    Attributes:
        weights: number of weights.
        stage: the stage at whose voxels each weight is used once.
        normalised: channels of the norm behind it, each with a weight and a bias; 0 where there is none.
    """

    weights: int
    stage: int
    normalised: int


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


def _layers(network: NetworkShape, decoders: int) -> Iterator[_Convolution]:
    before = network.in_channels
    for stage, after in enumerate(network.channels):
        volume = math.prod(network.kernels[stage])
        yield from _block(before, after, volume, stage)
        if network.blocks == "residual" and (before != after or math.prod(network.strides[stage]) > 1):
            yield _Convolution(before * after, stage, after)
        before = after
    for stage in range(len(network.channels) - 1):
        here, deeper = network.channels[stage], network.channels[stage + 1]
        for _ in range(decoders):
            # a transposed convolution whose kernel is its stride uses each weight once per voxel of its input
            yield _Convolution(deeper * here * math.prod(network.strides[stage + 1]), stage + 1, 0)
            yield from _block(2 * here, here, math.prod(network.kernels[stage]), stage)


def _block(before: int, after: int, volume: int, stage: int) -> Iterator[_Convolution]:
    yield _Convolution(before * after * volume, stage, after)
    yield _Convolution(after * after * volume, stage, after)
