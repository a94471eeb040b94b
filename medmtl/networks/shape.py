"""The measurements of a U-Net-style network, planned from voxel size and image shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medmtl.networks.features import FeatureSpec, Stride

MIN_SIZE = 4  # voxels that an axis keeps at the deepest stage
MIN_LONE = 6  # voxels that an axis keeps where it is halved alone, as in nnU-Net
ISOTROPIC = 2.0  # spacings within this factor of the finest count as alike, as in nnU-Net


@dataclass(frozen=True)
class NetworkShape:
    """Stages of an encoder, finest first.

    Attributes:
        in_channels: input channels.
        channels: feature channels per stage.
        kernels: convolution kernel per stage and axis.
        strides: stride of each stage's first convolution; (1, 1, 1) for the first stage.
        blocks: of the kind ``unet``: ``plain`` (two convolutions) or ``residual`` (the same with a shortcut).
        levels: decoder maps that voxel heads read, finest first; more than one means deep supervision.
        kind: of the encoder.
        blocks_per_stage: of the kinds that have several blocks per stage; otherwise empty.
    """

    in_channels: int
    channels: tuple[int, ...]
    kernels: tuple[Stride, ...]
    strides: tuple[Stride, ...]
    blocks: Literal["plain", "residual"] = "plain"
    levels: int = 1
    kind: str = "unet"
    blocks_per_stage: tuple[int, ...] = ()

    def cumulative_strides(self) -> tuple[Stride, ...]:
        """Stride of every stage's map against the image."""
        total = (1, 1, 1)
        result = []
        for stride in self.strides:
            total = (total[0] * stride[0], total[1] * stride[1], total[2] * stride[2])
            result.append(total)
        return tuple(result)

    @property
    def divisor(self) -> Stride:
        """What a sample's axes must be multiples of."""
        return self.cumulative_strides()[-1]

    def spec(self, voxel: bool) -> FeatureSpec:
        """What a head reads; decoder maps only for a voxel task."""
        decoded = self.channels[: self.levels] if voxel else ()
        return FeatureSpec(self.channels, self.cumulative_strides(), decoded)


def pooling_plan(
    shape: Sequence[int], spacing: Sequence[float], max_stages: int
) -> tuple[tuple[Stride, ...], tuple[Stride, ...]]:
    """Strides and kernels per stage for samples of a shape and voxel size.

    An axis is halved while that leaves it at least 4 voxels and while its voxels are within twice the finest axis', so
    that thick slices are not pooled before the in-plane axes have caught up. Its kernel is 1 until then, and 3 from
    then on. An axis that would be halved alone must keep 6 voxels: a further stage, with twice the channels, is not
    worth a last halving of one axis. After Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z, and the
    code of nnU-Net v2 (``get_pool_and_conv_props``). It deviates in two points: halves are not rounded up, so that 31
    voxels are halved twice and not three times, and the deepest stage's kernel follows the same rule as the others'.

    Args:
        shape: voxels per axis.
        spacing: mm per axis.
        max_stages: most stages, the first included.

    Returns:
        Strides and kernels.
    """
    size = [float(n) for n in shape]
    mm = [float(s) for s in spacing]
    strides: list[Stride] = [(1, 1, 1)]
    kernels: list[Stride] = [_kernel((1, 1, 1), mm)]
    while len(strides) < max_stages:
        finest = (
            min(s for s, n in zip(mm, size, strict=True) if n >= 2 * MIN_SIZE) if max(size) >= 2 * MIN_SIZE else 0.0
        )
        halved = [n >= 2 * MIN_SIZE and s < ISOTROPIC * finest for n, s in zip(size, mm, strict=True)]
        if not any(halved) or (sum(halved) == 1 and size[halved.index(True)] < 2 * MIN_LONE):
            break
        step = [2 if half else 1 for half in halved]
        size = [n / k for n, k in zip(size, step, strict=True)]
        mm = [s * k for s, k in zip(mm, step, strict=True)]
        strides.append((step[0], step[1], step[2]))
        kernels.append(_kernel(kernels[-1], mm))
    return tuple(strides), tuple(kernels)


def _kernel(before: Stride, mm: Sequence[float]) -> Stride:
    finest = min(mm)
    sizes = [3 if k == 3 or s < ISOTROPIC * finest else 1 for k, s in zip(before, mm, strict=True)]
    return (sizes[0], sizes[1], sizes[2])
