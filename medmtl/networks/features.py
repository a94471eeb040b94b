"""Where encoder and head meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

Stride = tuple[int, int, int]


@dataclass(frozen=True)
class FeatureSpec:
    """What a head may rely on when it is built.

    Attributes:
        channels: channels of each encoder map, finest first.
        strides: cumulative stride of each encoder map against the image, per axis.
        decoder_channels: the same for the decoder maps, finest first, whose strides are those of as many encoder maps.
        covariates: features of the clinical covariates; 0 where the task does not read them.
        guided: labels of each other task whose mask the head reads.
        tiled: whether a case is a bag of several images, which share one answer.
    """

    channels: tuple[int, ...]
    strides: tuple[Stride, ...]
    decoder_channels: tuple[int, ...] = ()
    covariates: int = 0
    guided: tuple[int, ...] = ()
    tiled: bool = False


@dataclass(frozen=True)
class Guide:
    """The predicted mask of another task on its finest grid, float32, detached.

    Attributes:
        foreground_B1DHW: probability of anything but background.
        total_BL: of each label or region, the sum of its probabilities, in voxels.
    """

    foreground_B1DHW: torch.Tensor
    total_BL: torch.Tensor


@dataclass(frozen=True)
class Features:
    """What a head reads.

    How two case heads read one map ``m`` under ``training.head_gradient: 0.02``, and nobody pools it twice::

        a = Features((m,), pooled=held).damped(0.02)  # encoder (a1,): m by another name, a hook passes 0.02 into m
        b = Features((m,), pooled=held).damped(0.02)  # encoder (b1,): the same of its own; whole is (m,) in both
        a.once("mean", -1, pool)  # p = pool(m), held under ("mean", id(m)); gives p by another name, with such a hook
        b.once("mean", -1, pool)  # finds p; gives it by a third name, with a hook of its own

    So ``m`` gets 0.02 of what each head sends: a part is damped between its head and ``p``, and passed on whole from
    there. A hook on ``p`` itself would see the sum of both. A pooling with parameters pools ``a1``, for its head alone.

    Attributes:
        encoder: maps of the encoder, finest first, each (B, channels[i], D, H, W) / strides[i]; empty where the task
            does not read the image.
        decoder: maps of the decoder, finest first; empty where the task is no voxel task.
        covariates_BN: float32 features of the clinical covariates; None where the task does not read them.
        guides: masks of other tasks; empty where the task is not guided.
        tiles: images per case, one after the other along the maps' first axis.
        whole: the encoder's maps before they were damped; None where they were not.
        share: of a gradient that passes into the maps; 1 where they were not damped.
        pooled: what was pooled of maps so far, by pooling and map, together with the map; the same object for all tasks
            of a forward pass. None where every head pools for itself.
    """

    encoder: tuple[torch.Tensor, ...]
    decoder: tuple[torch.Tensor, ...] = ()
    covariates_BN: torch.Tensor | None = None
    guides: tuple[Guide, ...] = ()
    tiles: int = 1
    whole: tuple[torch.Tensor, ...] | None = field(default=None, repr=False)
    share: float = 1.0
    pooled: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] | None = field(default=None, repr=False)

    def damped(self, share: float) -> Features:
        """The same maps, into which a head sends only a share of its gradient.

        Args:
            share: 0 (none) to 1 (all of it).
        """
        if share == 1:
            return self
        encoder, decoder = (tuple(_damped(level, share) for level in maps) for maps in (self.encoder, self.decoder))
        return replace(self, encoder=encoder, decoder=decoder, whole=self.encoder, share=share)

    def once(self, kind: str, level: int, pool: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """An encoder map pooled, damped like the map; the heads of several tasks that read one map share the work.

        Args:
            kind: of the pooling, which has no parameters.
            level: index of the map; negative ones count from the deepest.
            pool: (B, C, D, H, W) -> (B, F).
        """
        maps = self.encoder if self.whole is None else self.whole
        held = {} if self.pooled is None else self.pooled
        key = kind, id(maps[level])  # the map is held beside what was pooled: no other can get its id
        if key not in held:
            held[key] = maps[level], pool(maps[level])
        value = held[key][1]
        return value if self.share == 1 else _damped(value, self.share)


def _damped(value: torch.Tensor, share: float) -> torch.Tensor:
    if share == 0 or not value.requires_grad:
        return value.detach()
    # another name for the same values: the hook must not see what other heads send into them
    alias = value.view_as(value)
    alias.register_hook(lambda gradient: gradient * share)  # type: ignore[no-untyped-call]
    return alias
