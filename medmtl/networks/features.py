"""Where encoder and head meet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

Stride = tuple[int, int, int]


@dataclass(frozen=True)
class FeatureSpec:
    """What a head may rely on when it is built.

    Attributes:
        channels: channels of each encoder map, finest first.
        strides: cumulative stride of each encoder map against the image, per axis.
        decoder_channels, decoder_strides: the same for the decoder maps, finest first.
        covariates: features of the clinical covariates; 0 where the task does not read them.
        guided: whether the head reads the mask of another task.
        tiled: whether a case is a bag of several images, which share one answer.
    """

    channels: tuple[int, ...]
    strides: tuple[Stride, ...]
    decoder_channels: tuple[int, ...] = ()
    decoder_strides: tuple[Stride, ...] = ()
    covariates: int = 0
    guided: bool = False
    tiled: bool = False


@dataclass(frozen=True)
class Features:
    """What a head reads.

    Attributes:
        encoder: maps of the encoder, finest first, each (B, channels[i], D, H, W) / strides[i]; empty where the task
            does not read the image.
        decoder: maps of the decoder, finest first; empty where the task is no voxel task.
        covariates_BN: float32 features of the clinical covariates; None where the task does not read them.
        guide_B1DHW: float32 probabilities of another task's foreground on its finest grid, detached; None where the
            task is not guided.
        tiles: images per case, one after the other along the maps' first axis.
    """

    encoder: tuple[torch.Tensor, ...]
    decoder: tuple[torch.Tensor, ...] = ()
    covariates_BN: torch.Tensor | None = None
    guide_B1DHW: torch.Tensor | None = None
    tiles: int = 1

    def damped(self, share: float) -> Features:
        """The same maps, into which a head sends only a share of its gradient.

        Args:
            share: 0 (none) to 1 (all of it).
        """
        if share == 1:
            return self
        encoder, decoder = (tuple(_damped(level, share) for level in maps) for maps in (self.encoder, self.decoder))
        return replace(self, encoder=encoder, decoder=decoder)


def _damped(map_BCDHW: torch.Tensor, share: float) -> torch.Tensor:
    if share == 0 or not map_BCDHW.requires_grad:
        return map_BCDHW.detach()
    # another name for the same values: the hook must not see what other heads send into the map
    alias_BCDHW = map_BCDHW.view_as(map_BCDHW)
    alias_BCDHW.register_hook(lambda gradient: gradient * share)  # type: ignore[no-untyped-call]
    return alias_BCDHW
