"""From feature maps to one answer per case."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medmtl.networks.features import Features, FeatureSpec

SCALES = 3
DROPOUT = 0.2
VOXELS = (2, 3, 4)
INITIAL_WEIGHT = 1e-3
GAIN = 10.0
RATE = 0.05
EPSILON = 1e-5
GATES = 32


class RunningStandardisation(nn.Module):
    """``(x - m) / sqrt(v + eps)`` with running moments over samples.

    The moments are those of all samples of the first 20 steps, then an exponential average with rate
    0.05 per step. They are updated in training, before they are used, and carry no gradient: a sample's gradient never
    reaches another sample.

    Args:
        width: number of features.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    steps: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, value_BN: torch.Tensor) -> torch.Tensor:
        """(B, width) -> (B, width)."""
        if self.training:
            self._update(value_BN)
        return (value_BN - self.mean) * torch.rsqrt(self.variance + EPSILON)

    @torch.no_grad()
    def _update(self, value_BN: torch.Tensor) -> None:
        self.steps += 1
        rate = (1 / self.steps).clamp(min=RATE)
        shift_N = value_BN.mean(dim=0) - self.mean
        # the variance of a mixture of the old samples and the new ones
        spread_N = value_BN.var(dim=0, correction=0) + (1 - rate) * shift_N**2
        self.variance += rate * (spread_N - self.variance)
        self.mean += rate * shift_N


class PooledHead(nn.Module):
    """Mean and maximum of the deepest maps, brought to one range, then one linear layer.

    ::

        s = concat over the three deepest maps of [mean_v f, max_v f]
        output = W dropout((s - m) / sqrt(v + eps)) + b

    Why so. An instance norm gives every channel one mean and one variance in every case, so that the plain mean of a
    map behind it hardly differs between cases, and a head that sees nothing else can stay at the constant answer for
    hundreds of steps. What does differ is how the values are spread: a structure that fills the fraction p of a map is
    sqrt((1 - p) / p) high there, so that the mean behind a leaky ReLU is sqrt(p (1 - p)) and the maximum
    sqrt((1 - p) / p). Both tell its extent; that the samples of different steps differ somewhat in shape was measured
    not to matter, and scaling by the root of the voxels not to help. They differ little between cases beside that, so
    each is standardised by a running mean m and variance v *over samples*. Unlike a layer norm this takes nothing from
    a case that distinguishes it, and unlike a batch norm no case's output depends on its neighbours: m and v are
    constants in the gradient.

    The linear layer starts near zero, so that the first output is the bias: the best constant answer.

    Clinical covariates c, where the task reads them, join as they are: ::

        output = W [dropout((s - m) / sqrt(v + eps)), g c] + b

    They have one scale already, learned from the whole training fold, which running moments of a rare category would
    spoil. The gain g = 10 is a step size: hundreds of pooled features move together, and one covariate moves alone. Its
    weights start at 0 and stay there where the training fold does not vary. A task that reads covariates alone is the
    linear model ``W g c + b``.

    Where a case is a bag of T tiles, s is pooled per tile and standardised over tiles, and the bag's features are their
    mean under gated attention (Ilse et al. 2018, https://arxiv.org/abs/1802.04712): ::

        a_t = softmax over t of  w . (tanh(V s_t) * sigmoid(U s_t)),    s = sum_t a_t s_t

    Args:
        spec: the encoder maps, the number of covariate features, and whether a case is a bag of tiles.
        bias: the initial bias; its length is the number of outputs.
    """

    def __init__(self, spec: FeatureSpec, bias: Sequence[float]) -> None:
        super().__init__()
        self.scales = min(SCALES, len(spec.channels))
        width = 2 * sum(spec.channels[-self.scales :])
        self.standardise = RunningStandardisation(width) if width else nn.Identity()
        self.attention = GatedAttention(width) if spec.tiled else None
        self.dropout = nn.Dropout(DROPOUT)
        self.linear = nn.Linear(width + spec.covariates, len(bias))
        nn.init.normal_(self.linear.weight, std=INITIAL_WEIGHT)
        with torch.no_grad():
            self.linear.weight[:, width:] = 0
            self.linear.bias.copy_(torch.tensor(bias))

    def forward(self, features: Features) -> torch.Tensor:
        """Features -> (B, outputs), fp32."""
        return self.answer(self.pool(features), features.covariates_BN, features.tiles)

    def pool(self, features: Features) -> torch.Tensor | None:
        """Standardised features of every image, (B * T, F); None where no image is read."""
        pooled = []
        for map_BCDHW in features.encoder[-self.scales :]:
            pooled += [map_BCDHW.mean(dim=VOXELS, dtype=torch.float32), map_BCDHW.amax(dim=VOXELS).float()]
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            return self.standardise(torch.cat(pooled, dim=1)) if pooled else None

    def answer(self, pooled_BF: torch.Tensor | None, covariates_BN: torch.Tensor | None, tiles: int) -> torch.Tensor:
        """Outputs (B, outputs) from what :meth:`pool` made of the tiles of each case."""
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            known = []
            if pooled_BF is not None:
                if self.attention is not None:
                    pooled_BF = self.attention(pooled_BF.reshape(-1, tiles, pooled_BF.shape[1]))
                known.append(self.dropout(pooled_BF))
            if covariates_BN is not None:
                known.append(GAIN * covariates_BN)
            output: torch.Tensor = self.linear(torch.cat(known, dim=1))
        return output


class GatedAttention(nn.Module):
    """The mean of a bag under weights that each member's own features decide; at first all alike.

    Args:
        width: number of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Linear(width, GATES)
        self.gate = nn.Linear(width, GATES)
        self.weight = nn.Linear(GATES, 1)
        nn.init.normal_(self.weight.weight, std=INITIAL_WEIGHT)

    def forward(self, bag_BTF: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, F)."""
        gated = torch.tanh(self.content(bag_BTF)) * torch.sigmoid(self.gate(bag_BTF))
        share_BT1 = self.weight(gated).softmax(dim=1)
        pooled_BF: torch.Tensor = (share_BT1 * bag_BTF).sum(dim=1)
        return pooled_BF
