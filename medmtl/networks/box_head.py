"""The head of a task that finds boxes: for every anchor a logit and how far its corners are off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from medmtl.networks.features import Features, FeatureSpec, Stride
from medmtl.networks.norm import InstanceNorm

PRIOR = 0.01  # share of anchors that are a lesion, at first, as in RetinaNet
NEAREST = 2.5  # an anchor is at least so many strides wide, so that some position lies near the middle of its lesion
VALUES = 7  # a logit and six numbers of the box coder
SLOPE = 0.01


class BoxHead(nn.Module):
    """Two convolutions on each map that has anchors, after RetinaNet (Lin et al. 2017, https://arxiv.org/abs/1708.02002).

    Each anchor shape stands on the coarsest map whose stride is at most its size / 2.5 along every axis. Maps are the
    decoder's where it has one of that size, else the encoder's.

    Args:
        spec: channels and strides of the maps.
        anchors: sizes in voxels of the sample, per axis.
    """

    def __init__(self, spec: FeatureSpec, anchors: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self._decoded = len(spec.decoder_channels)
        self._shapes: dict[int, list[Sequence[float]]] = {}
        for size in anchors:
            self._shapes.setdefault(_stage_of(size, spec.strides), []).append(size)
        self._strides = spec.strides
        self.towers = nn.ModuleList(_tower(spec.channels[stage], len(self._shapes[stage])) for stage in self.stages)

    @property
    def stages(self) -> list[int]:
        """The maps that are read, finest first."""
        return sorted(self._shapes)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """For N anchors: logit and box code (B, N, 7), and fp32 corners with the number of their group (B, N, 7).

        A group is one shape on one map; its anchors follow each other.
        """
        found: list[torch.Tensor] = []
        anchors: list[torch.Tensor] = []
        for stage, tower in zip(self.stages, self.towers, strict=True):
            map_BCDHW = features.decoder[stage] if stage < self._decoded else features.encoder[stage]
            values: torch.Tensor = tower(map_BCDHW)
            batch, grid = values.shape[0], values.shape[2:]
            found.append(values.view(batch, -1, VALUES, *grid).permute(0, 1, 3, 4, 5, 2).reshape(batch, -1, VALUES))
            for size in self._shapes[stage]:
                corners = grid_anchors(grid, self._strides[stage], size, values.device)
                anchors.append(functional.pad(corners, (0, 1), value=float(len(anchors))))
        prediction = torch.cat(found, dim=1)
        return prediction, torch.cat(anchors).expand(prediction.shape[0], -1, -1)


def grid_anchors(
    grid: Sequence[int], stride: Sequence[int], size: Sequence[float], device: torch.device | None = None
) -> torch.Tensor:
    """Boxes (N, 6) of one size around the middle of each voxel of a map, in voxels of the sample, fp32.

    MONAI's generator rounds them to whole voxels, which are a third of a small lesion.
    """
    axes = [(torch.arange(n, dtype=torch.float32, device=device) + 0.5) * s for n, s in zip(grid, stride, strict=True)]
    centre_N3 = torch.stack([place.reshape(-1) for place in torch.meshgrid(axes, indexing="ij")], dim=1)
    half = torch.tensor(size, dtype=torch.float32, device=device) / 2
    return torch.cat([centre_N3 - half, centre_N3 + half], dim=1)


def _stage_of(size: Sequence[float], strides: Sequence[Stride]) -> int:
    near = [
        stage
        for stage, stride in enumerate(strides)
        if all(step == 1 or NEAREST * step <= n for step, n in zip(stride, size, strict=True))
    ]
    return max(near, default=0)


def _tower(channels: int, shapes: int) -> nn.Sequential:
    last = nn.Conv3d(channels, shapes * VALUES, 1)
    nn.init.normal_(last.weight, std=0.01)
    with torch.no_grad():
        last.bias.zero_()  # type: ignore[union-attr]
        last.bias.view(shapes, VALUES)[:, 0] = -math.log((1 - PRIOR) / PRIOR)  # type: ignore[union-attr]
    return nn.Sequential(
        nn.Conv3d(channels, channels, 3, padding=1, bias=False),
        InstanceNorm(channels),
        nn.LeakyReLU(SLOPE),
        last,
    )
