"""The memory that a training will take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from medmtl import networks
from medmtl.data.crop import Triple
from medmtl.device import Device
from medmtl.networks.cost import Towers, parameter_count, stage_voxels
from medmtl.networks.shape import NetworkShape

# Fitted to the peaks on a CPU that benchmarks/memory_model.py measures, and raised until none was underestimated.
PROCESS_BYTES = 700_000_000  # interpreter, torch, MONAI and the loader, resident before the first step
DECODER_MAPS = 8.0  # per stage: the skip's concatenation, which is two, the same four, and what the backward pass adds
INPUT_COPIES = 7  # fp32: batches made ahead, the one in use, its channels-last copy
HOLES = 0.3  # per axis along which samples of different steps differ: room that other shapes left, and nobody can use
OUTPUT_COPIES = 6  # fp32: logits, probabilities, targets and gradients of the losses
PARAMETER_BYTES = 48  # weight, gradient, two moments, average; a validation's copy; a commit's copies


@dataclass(frozen=True)
class Budget:
    """What a training of one network needs, against what it may have.

    Attributes:
        network, towers: the network's measurements, and how often its parts are run for a sample.
        outputs: channels of all voxel tasks' outputs together.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: the machine.
        limit_bytes: ``plan.memory_gb``.
        varied_axes: axes along which whole-case samples of different steps differ.
        beside_bytes: what the samples of another view take.
        built: the networks that stand there, where that is more than a sample is run through.
    """

    network: NetworkShape
    towers: Towers
    outputs: int
    precision: str
    device: Device
    limit_bytes: int
    varied_axes: int = 0
    beside_bytes: int = 0
    built: tuple[Towers, ...] = ()

    def of_one_shape(self) -> Budget:
        """The same for patches, which all have one shape."""
        return replace(self, varied_axes=0)

    def need(self, shape: Triple, batch: int) -> int:
        """Predicted peak bytes of the training process: resident memory on a CPU, device memory on a GPU.

        The process itself, parameters with their gradients, moments and copies, and per sample the maps of every stage,
        the input and the outputs. Meant to be at most a quarter too high and never too low.

        Args:
            shape: voxels of a sample per axis.
            batch: samples per step.
        """
        process = PROCESS_BYTES if self.device.kind == "cpu" else 0
        return process + self.parameters + self.maps(shape, batch) + self.beside_bytes

    @property
    def parameters(self) -> int:
        """Bytes of the parameters with their gradients, moments and copies."""
        return PARAMETER_BYTES * sum(parameter_count(self.network, one) for one in self.built or (self.towers,))

    def maps(self, shape: Triple, batch: int) -> int:
        """What the samples alone take: every stage's maps, input and outputs."""
        towers, voxels = self.towers, stage_voxels(self.network, shape)
        sizes = [channels * count for channels, count in zip(self.network.channels, voxels, strict=True)]
        held = networks.kinds.get(self.network.kind).maps_per_stage(self.network)
        encoder = sum(held[stage] * towers.copies(stage) * size for stage, size in enumerate(sizes))
        encoder += towers.beside_maps * sum(sizes)
        decoder = DECODER_MAPS * (towers.decoders + towers.reruns) * sum(sizes[:-1])
        maps = (encoder + decoder) * (4 if self.precision == "fp32" else 2)
        whole = 4 * math.prod(shape) * (INPUT_COPIES * self.network.in_channels + OUTPUT_COPIES * self.outputs)
        holes = 1 + HOLES * self.varied_axes if self.device.kind == "cpu" else 1.0
        return math.ceil(batch * (maps + whole) * holes)

    def fits(self, shape: Triple, batch: int) -> bool:
        """Whether the need is within the limit."""
        return self.need(shape, batch) <= self.limit_bytes

    def largest_batch(self, shape: Triple, bound: int) -> int:
        """The most samples that fit, from 1 to ``bound``; 1 also where not even one fits."""
        return next((batch for batch in range(bound, 1, -1) if self.fits(shape, batch)), 1)
