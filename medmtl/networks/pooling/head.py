"""From feature maps to one answer per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.joint import Dropout
from medmtl.networks.pooling.attention import GatedAttention
from medmtl.networks.pooling.bag import BagAttention
from medmtl.networks.pooling.base import Pooling
from medmtl.networks.pooling.gem import GeneralisedMean
from medmtl.networks.pooling.guidance import mean_under
from medmtl.networks.pooling.mean import Mean
from medmtl.networks.pooling.mean_max import MeanMax
from medmtl.networks.pooling.running import RunningStandardisation
from medmtl.networks.pooling.sizes import Sizes

POOLINGS: Mapping[str, type[Pooling]] = {cls.kind: cls for cls in (MeanMax, Mean, GeneralisedMean, GatedAttention)}

SCALES = 3
DROPOUT = 0.2
INITIAL_WEIGHT = 1e-3
GAIN = 10.0


class PooledHead(nn.Module):
    """The deepest maps pooled, brought to one range, then one linear layer.

    ::

        s = concat over the three deepest maps of pool(f)
        output = W [dropout((s - m) / sqrt(v + eps)), z] + b

    ``pool`` is [mean_v f, max_v f] unless another is chosen.

    Why so. An instance norm gives every channel one mean and one variance in every case, so that the plain mean of a
    map behind it hardly differs between cases, and a head that sees nothing else can stay at the constant answer for
    hundreds of steps. What does differ is how the values are spread: a structure that fills the fraction p of a map is
    sqrt((1 - p) / p) high there, so that the mean behind a leaky ReLU is sqrt(p (1 - p)) and the maximum
    sqrt((1 - p) / p). Both tell its extent as a share of the sample, and padding to another shape was measured to move
    them as much as another case does; so the head is told how large the sample is, by z (:class:`Sizes`). They differ
    little between cases beside that, so each is standardised by a running mean m and variance v *over samples*. Unlike
    a layer norm this takes nothing from a case that distinguishes it, and unlike a batch norm no case's output depends
    on its neighbours: m and v are constants in the gradient.

    The linear layer starts near zero, so that the first output is the bias: the best constant answer.

    Clinical covariates c, where the task reads them, join as they are: ::

        output = W [dropout((s - m) / sqrt(v + eps)), z, g c] + b

    They have one scale already, learned from the whole training fold, which running moments of a rare category would
    spoil. The gain g = 10 is a step size: hundreds of pooled features move together, and one covariate moves alone. Its
    weights start at 0 and stay there where the training fold does not vary. A task that reads covariates alone is the
    linear model ``W g c + b``.

    A guided head also pools each map's mean under the mask of another task
    (:mod:`medmtl.networks.pooling.guidance`), and z holds how large the mask's labels are.

    Where a case is a bag of tiles, the standardised features of its tiles are joined first; see
    :mod:`medmtl.networks.pooling.bag`. Tiles are of one shape, and there is no z.

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
        self.sizes = Sizes(sum(spec.guided)) if self.width and not spec.tiled else None
        self.bag = BagAttention(self.width) if spec.tiled else None
        self.dropout = Dropout(DROPOUT)
        sizes = 0 if self.sizes is None else self.sizes.width
        self.linear = nn.Linear(self.width + sizes + spec.covariates, len(bias))
        nn.init.normal_(self.linear.weight, std=INITIAL_WEIGHT)
        with torch.no_grad():
            self.linear.weight[:, self.width :] = 0
            self.linear.bias.copy_(torch.tensor(bias))

    def forward(self, features: Features) -> torch.Tensor:
        """Features -> (B, outputs), fp32."""
        size_BS = None if self.sizes is None else self.sizes(features)
        return self.answer(self.pool(features), features.covariates_BN, features.tiles, size_BS)

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
        size_BS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The output (cases, outputs), fp32.

        Args:
            pooled_BF: what :meth:`pool` gave, (cases * tiles, width); the tiles of a case one after the other.
            covariates_BN: of each case.
            tiles: per case.
            size_BS: what ``sizes`` gave, where the head has it.
        """
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            known = []
            if self.width:
                known_BF = self.standardise(pooled_BF)
                if self.bag is not None:
                    known_BF = self.bag(known_BF.reshape(-1, tiles, self.width))
                known.append(self.dropout(known_BF))
            if size_BS is not None:
                known.append(size_BS)
            if covariates_BN is not None:
                known.append(GAIN * covariates_BN)
            output: torch.Tensor = self.linear(torch.cat(known, dim=1))
        return output
