"""The memory that a training will take."""

from __future__ import annotations

import numpy as np

from medmtl.device import Device
from medmtl.networks.shape import NetworkShape
from medmtl.planning.plan import Triple

PROCESS_BYTES = 900_000_000  # interpreter, torch, MONAI and the loader, resident before the first step


def activation_bytes(network: NetworkShape, shape: Triple, precision: str) -> float:
    """Bytes of one sample's activations in training.

    Per stage and convolution: the convolution's output and the normalised one, kept for the backward pass, in the
    encoder and again in the decoder; plus the skip connection's concatenation.
    """
    bytes_each = 4 if precision == "fp32" else 2
    total = 0.0
    voxels = float(np.prod(shape))
    for index, channels in enumerate(network.channels):
        voxels /= float(np.prod(network.strides[index]))
        tensors = 4 if index == len(network.channels) - 1 else 4 + 4 + 4
        total += tensors * channels * voxels * bytes_each
    # full-resolution logits, probabilities and gradients of the losses are fp32
    return total + 48 * float(np.prod(shape))


def memory_bytes(network: NetworkShape, shape: Triple, batch: int, precision: str, device: Device) -> int:
    """Predicted peak memory of training: process, parameters with their optimiser state, activations of the batch."""
    parameters = sum(
        54 * channels * (previous + channels)
        for previous, channels in zip((network.in_channels, *network.channels), network.channels, strict=False)
    )
    activations = batch * activation_bytes(network, shape, precision) * device.activation_factor
    loaded = 8 * batch * float(np.prod(shape)) * 4 * network.in_channels
    fixed = PROCESS_BYTES if device.kind == "cpu" else 0
    return int(fixed + parameters * 24 + activations + loaded)
