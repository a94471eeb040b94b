"""Normalisation and activation of every block."""

from __future__ import annotations

import math

import torch
from monai.networks.layers.factories import Norm
from torch import nn
from torch.nn import functional

NORM = "medmtl_instance"  # the name under which MONAI's blocks find InstanceNorm
GROUP_NORM = "medmtl_group"
ACTIVATION = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1 over its voxels, then an affine map.

    ::

        y = w (x - mean(x)) / sqrt(var(x) + 1e-5) + b

    Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022. The same numbers as :class:`torch.nn.InstanceNorm3d`, which
    however copies channels-last maps to contiguous ones, and returns those, so that each convolution behind it reorders
    again. Torch's batch norm has a kernel for channels-last maps in bf16, and over a batch of one it is an instance
    norm: hence one call per sample. On a CPU with bf16 units this takes a training step to three quarters of its time.

    Args:
        num_features: channels.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.second = False

    def add_second(self) -> None:
        """A second affine map, at first equal to the first; for another view, whose maps are spread otherwise."""
        self.second_weight = nn.Parameter(self.weight.detach().clone())
        self.second_bias = nn.Parameter(self.bias.detach().clone())

    @property
    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the view that is looked at."""
        return (self.second_weight, self.second_bias) if self.second else (self.weight, self.bias)

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) of the same shape, type and memory format.

        Raises:
            ValueError: if a map has a single voxel, whose variance is 0 whatever it holds.
        """
        weight, bias = self.affine
        if not map_BCDHW.is_contiguous(memory_format=torch.channels_last_3d):
            return functional.instance_norm(map_BCDHW, weight=weight, bias=bias)
        samples = [
            functional.batch_norm(sample, None, None, weight, bias, training=True)
            for sample in torch.split(map_BCDHW, 1)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


class GroupNorm(InstanceNorm):
    """The same over groups of neighbouring channels, whose mean and variance are common.

    Wu and He 2018, https://arxiv.org/abs/1803.08494. Torch's own kernel keeps the memory format.

    Args:
        num_features: channels.
        groups: as many as the largest common divisor of this and the channels.
    """

    def __init__(self, num_features: int, groups: int) -> None:
        super().__init__(num_features)
        self.groups = math.gcd(num_features, groups)

    def forward(self, map_BCDHW: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) of the same shape, type and memory format."""
        weight, bias = self.affine
        # autocast would keep an fp32 copy of every map; the kernel sums in fp32 in any case
        with torch.autocast(map_BCDHW.device.type, enabled=False):
            return functional.group_norm(map_BCDHW, self.groups, weight.to(map_BCDHW.dtype), bias.to(map_BCDHW.dtype))


def norms(network: nn.Module) -> list[InstanceNorm]:
    """All norms of a network."""
    return [module for module in network.modules() if isinstance(module, InstanceNorm)]


Norm.add_factory_class(NORM, InstanceNorm, "Instance normalisation that keeps the memory format.")
Norm.add_factory_class(GROUP_NORM, GroupNorm, "Group normalisation with a second affine map for another view.")
