"""From feature maps to one answer per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

from medmtl.networks.features import Features, FeatureSpec, Guide
from medmtl.networks.joint import Dropout, JointBatch, WholeDropout
from medmtl.networks.pooling.attention import GatedAttention
from medmtl.networks.pooling.bag import BagAttention
from medmtl.networks.pooling.base import Pooling
from medmtl.networks.pooling.gem import GeneralisedMean
from medmtl.networks.pooling.guidance import extents, mean_under
from medmtl.networks.pooling.mean import Mean
from medmtl.networks.pooling.mean_max import MeanMax

POOLINGS: Mapping[str, type[Pooling]] = {cls.kind: cls for cls in (MeanMax, Mean, GeneralisedMean, GatedAttention)}

SCALES = 3
DROPOUT = 0.2
INITIAL_WEIGHT = 1e-3
GAIN = 10.0
EXTENT_GAIN = 30.0
ALONE = 0.5
RATE = 0.05
EPSILON = 1e-5


class RunningStandardisation(nn.Module):
    """``(x - m) / sqrt(v + eps)`` with running moments over samples.

    The moments are those of all samples of the first 20 steps, then an exponential average with rate
    0.05 per step. They are updated in training, before they are used, and carry no gradient: a sample's gradient never
    reaches another sample.

    Args:
        width: number of features.

    Attributes:
        joint: the batch that several processes hold together, whose moments are then meant; None for one process.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    steps: torch.Tensor
    joint: JointBatch | None = None

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
        mean_N, variance_N = self._moments(value_BN)
        shift_N = mean_N - self.mean
        # the variance of a mixture of the old samples and the new ones
        spread_N = variance_N + (1 - rate) * shift_N**2
        self.variance += rate * (spread_N - self.variance)
        self.mean += rate * shift_N

    def _moments(self, value_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.joint is None:
            return value_BN.mean(dim=0), value_BN.var(dim=0, correction=0)
        value_BN = value_BN.double()
        own = torch.cat([value_BN.sum(0), value_BN.square().sum(0), value_BN.new_tensor([len(value_BN)])])
        *sums, count = torch.split(self.joint.sum(own), [self.mean.numel(), self.mean.numel(), 1])
        mean_N, square_N = (total / count for total in sums)
        return mean_N.to(self.mean), (square_N - mean_N**2).clamp(min=0).to(self.mean)


class PooledHead(nn.Module):
    """The deepest maps pooled, brought to one range, then one linear layer.

    ::

        s = concat over the three deepest maps of pool(f)
        output = W dropout((s - m) / sqrt(v + eps)) + b

    ``pool`` is [mean_v f, max_v f] unless another is chosen.

    Why so. An instance norm gives every channel one mean and one variance in every case, so that the plain mean of a
    map behind it hardly differs between cases, and a head that sees nothing else can stay at the constant answer for
    hundreds of steps. What does differ is how the values are spread: a structure that fills the fraction p of a map is
    sqrt((1 - p) / p) high there, so that the mean behind a leaky ReLU is sqrt(p (1 - p)) and the maximum
    sqrt((1 - p) / p). Both tell its extent, as a share of the sample: padding to another shape moves them as much as
    another case does, and scaling by the root of the voxels was measured not to help. They differ little between cases
    beside that, so each is standardised by a running mean m and variance v *over samples*. Unlike a layer norm this
    takes nothing from a case that distinguishes it, and unlike a batch norm no case's output depends on its neighbours:
    m and v are constants in the gradient.

    The linear layer starts near zero, so that the first output is the bias: the best constant answer.

    Clinical covariates c, where the task reads them, join as they are: ::

        output = W [dropout((s - m) / sqrt(v + eps)), g c] + b

    They have one scale already, learned from the whole training fold, which running moments of a rare category would
    spoil. The gain g = 10 is a step size: hundreds of pooled features move together, and one covariate moves alone. Its
    weights start at 0 and stay there where the training fold does not vary. A task that reads covariates alone is the
    linear model ``W g c + b``.

    A guided head pools, behind that, each map's mean under the mask of another task, and reads how large the mask's
    labels are (:mod:`medmtl.networks.pooling.guidance`): ::

        output = W [dropout((s - m) / sqrt(v + eps)), h (e - m') / sqrt(v' + eps), g c] + b

    with the gain h = 30 on the extents e, for the same reason as g: where a label follows from a mask's size, the few
    numbers that say so have to be faster than hundreds of features that can learn the training cases by heart. Once
    these have done so, no error is left to learn a size from. So half of the training samples are answered from the
    extents (and covariates) alone, all that is pooled dropped at once, and doubled in the other half.

    Where a case is a bag of tiles, the standardised features of its tiles are joined first; see
    :mod:`medmtl.networks.pooling.bag`.

    Args:
        spec: the encoder maps, the guides, whether a case is a bag, and the number of covariate features.
        bias: the initial bias; its length is the number of outputs.
        pooling: one of ``POOLINGS``.
    """

    def __init__(self, spec: FeatureSpec, bias: Sequence[float], pooling: str = MeanMax.kind) -> None:
        super().__init__()
        self.scales = min(SCALES, len(spec.channels))
        channels = spec.channels[-self.scales :]
        pools = [POOLINGS[pooling](count) for count in channels]
        self.pools = nn.ModuleList(pools)
        self.width = sum(pool.width for pool in pools) + len(spec.guided) * sum(channels)
        self.standardise = RunningStandardisation(self.width) if self.width else nn.Identity()
        self.standardise_extents = RunningStandardisation(sum(spec.guided)) if spec.guided else None
        self.bag = BagAttention(self.width) if spec.tiled else None
        self.dropout = Dropout(DROPOUT)
        self.all_or_none = WholeDropout(ALONE) if spec.guided else nn.Identity()
        self.linear = nn.Linear(self.width + sum(spec.guided) + spec.covariates, len(bias))
        nn.init.normal_(self.linear.weight, std=INITIAL_WEIGHT)
        with torch.no_grad():
            self.linear.weight[:, self.width :] = 0
            self.linear.bias.copy_(torch.tensor(bias))

    def forward(self, features: Features) -> torch.Tensor:
        """Features -> (B, outputs), fp32."""
        return self.answer(self.pool(features), features.covariates_BN, features.tiles, features.guides)

    def pool(self, features: Features) -> torch.Tensor:
        """What is pooled of the maps, (B, width), fp32, *before* it is standardised; of width 0 without maps."""
        if not features.encoder:
            assert features.covariates_BN is not None
            return features.covariates_BN[:, :0]
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            pooled = [self._pooled(features, level) for level in range(-self.scales, 0)]
            for guide in features.guides:
                under = partial(mean_under, guide_B1DHW=guide.foreground_B1DHW)
                # a guide's identity names it: the features of every head hold it as long as what was pooled
                pooled += [features.once(f"under {id(guide)}", level, under) for level in range(-self.scales, 0)]
            return torch.cat(pooled, dim=1)

    def _pooled(self, features: Features, level: int) -> torch.Tensor:
        pool = self.pools[level]
        assert isinstance(pool, Pooling)
        if any(True for _ in pool.parameters()):
            pooled: torch.Tensor = pool(features.encoder[level])
            return pooled
        return features.once(pool.kind, level, pool)

    def answer(
        self,
        pooled_BF: torch.Tensor,
        covariates_BN: torch.Tensor | None = None,
        tiles: int = 1,
        guides: Sequence[Guide] = (),
    ) -> torch.Tensor:
        """The output (cases, outputs), fp32.

        Args:
            pooled_BF: what :meth:`pool` gave, (cases * tiles, width); the tiles of a case one after the other.
            covariates_BN: of each case.
            tiles: per case.
            guides: of each case.
        """
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            known = []
            if self.width:
                known_BF = self.standardise(pooled_BF)
                if self.bag is not None:
                    known_BF = self.bag(known_BF.reshape(-1, tiles, self.width))
                known.append(self.all_or_none(self.dropout(known_BF)))
            if self.standardise_extents is not None:
                known.append(EXTENT_GAIN * self.standardise_extents(extents(guides)))
            if covariates_BN is not None:
                known.append(GAIN * covariates_BN)
            output: torch.Tensor = self.linear(torch.cat(known, dim=1))
        return output
