"""How long a training will take on this machine: operations by arithmetic, their speed by a short measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from medmtl import networks
from medmtl.data.crop import Triple
from medmtl.device import Precision, autocast, true_fp32
from medmtl.networks.cost import Towers, forward_operations
from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.encoder import Encoder
from medmtl.networks.shape import NetworkShape
from medmtl.planning.plan import Plan

BACKWARD = 2  # passes that the backward pass is worth
MEASURED_SECONDS = 1.0
MEASURED_VOXELS = 60_000
BESIDES = 1.3  # losses, the optimiser, and loading that competes for the processor


def passes_per_step(needs: str, tasks: int) -> int:
    """Forward passes that a step is worth: of a weighting on gradients at most, for each task has a backward pass then.

    Args:
        needs: of the weighting; see :class:`medmtl.weighting.base.Weighting`.
        tasks: that see an image.
    """
    if needs == "gradients":
        return 1 + BACKWARD * max(1, tasks)
    return 1 + BACKWARD + (needs == "second forward")


def with_duration(plan: Plan, towers: Towers, second_towers: Towers | None = None, passes: int = 1 + BACKWARD) -> Plan:
    """The plan with its predicted training time, within a factor of about two; takes about a second to measure.

    Args:
        plan: of :func:`medmtl.planning.make_plan`.
        towers: how often the parts of its network are run for a sample.
        second_towers: the same for a sample of its second view, where it has one; by default the encoders.
        passes: of :func:`passes_per_step`; by default a forward and a backward pass.
    """
    if plan.steps is None:
        return plan
    operations = plan.batch * passes * forward_operations(plan.network, towers, plan.shape)
    if (second := plan.case_view) is not None:
        samples = second.batch * second.tiles
        alone = forward_operations(plan.network, second_towers or towers.without_decoders(), second.shape)
        operations += samples * passes * alone
    speed = measure_operations_per_second(plan, towers.decoders)
    seconds = plan.steps * BESIDES * operations / speed
    reason = (
        f"{operations / 1e9:.3g} billion operations a step, of which this machine made {speed / 1e9:.3g} billion a "
        "second just now; rough, within a factor of two, and without preparation and validation"
    )
    return replace(plan, seconds=seconds, reasons={**plan.reasons, "time": reason})


@true_fp32()
def measure_operations_per_second(plan: Plan, decoders: int) -> float:
    """Speed of the planned network's forward and backward pass on a sample small enough to take a second in all.

    Args:
        plan: its network, precision, device and threads are used.
        decoders: how many stand on the encoder.
    """
    device = torch.device(plan.device)
    shape = measured_shape(plan.network, plan.shape)
    with _threads(plan.threads), torch.random.fork_rng():
        encoder = networks.kinds.get(plan.network.kind)(plan.network).to(device)
        stack = [UnetDecoder(plan.network).to(device) for _ in range(decoders)]
        image = torch.randn(1, plan.network.in_channels, *shape, device=device)
        _pass(encoder, stack, image, plan.precision)  # the first one also chooses kernels
        passes, begin = 0, time.perf_counter()
        while not passes or time.perf_counter() - begin < MEASURED_SECONDS:
            _pass(encoder, stack, image, plan.precision)
            passes += 1
        seconds = time.perf_counter() - begin
    return passes * (1 + BACKWARD) * forward_operations(plan.network, Towers(1, decoders), shape) / seconds


def measured_shape(network: NetworkShape, shape: Triple) -> Triple:
    """A shape of about 60,000 voxels at most, if the deepest map keeps two voxels on the halved axes."""
    least = [min(n, 2 * d) for n, d in zip(shape, network.divisor, strict=True)]
    x, y, z = shape
    while math.prod((x, y, z)) > MEASURED_VOXELS:
        axis = max(range(3), key=lambda axis: (x, y, z)[axis] / least[axis])
        if (x, y, z)[axis] <= least[axis]:
            break
        x, y, z = (n - network.divisor[axis] if i == axis else n for i, n in enumerate((x, y, z)))
    return x, y, z


def _pass(encoder: Encoder, decoders: list[UnetDecoder], image_BCDHW: torch.Tensor, precision: Precision) -> None:
    with autocast(image_BCDHW.device, precision):
        maps = encoder(image_BCDHW)
        ends = [decoder(maps)[0] for decoder in decoders] or [maps[-1]]
    sum(end.float().square().mean() for end in ends).backward()
    if image_BCDHW.device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
