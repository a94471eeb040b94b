"""The machine that a training runs on, and the memory that it will take there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from medmtl.errors import MachineError
from medmtl.networks.shape import NetworkShape

Triple = tuple[int, int, int]

PROCESS_BYTES = 900_000_000  # interpreter, torch, MONAI and the loader, resident before the first step


@dataclass(frozen=True)
class Device:
    """What the plan must know of the machine.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        bf16: whether bfloat16 arithmetic is native.
        cores: processors available to this process.
        activation_factor: measured bytes per planned activation byte; see :func:`activation_bytes`.
    """

    kind: Literal["cpu", "cuda"]
    bf16: bool
    cores: int
    activation_factor: float = 1.0


def describe_device(name: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device asked for; ``auto`` takes a CUDA device where there is one.

    Raises:
        MachineError: if ``cuda`` is asked for and absent; there is no silent CPU run.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("no CUDA device is available; use --device cpu or auto", code="B143")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if name != "cpu" and torch.cuda.is_available():
        return Device("cuda", torch.cuda.is_bf16_supported(including_emulation=False), cores)
    return Device("cpu", _cpu_has_bf16(), cores)


def describe_hardware(kind: str) -> str:
    """The GPU's name, or the instruction set that torch uses: what can change the last bits of a result."""
    if kind == "cuda":
        return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "no CUDA device"
    return str(torch.backends.cpu.get_cpu_capability())


def _cpu_has_bf16() -> bool:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported()) if supported is not None else False


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
