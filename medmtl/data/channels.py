"""Optional channels on their way into the network: zeros and an indicator where a case lacks one.

In training a channel that is there is sometimes blanked, so that a network of whose training cases few lack a channel
still learns to do without it (channel dropout; the idea is that of ModDrop, Neverova et al. 2016,
https://doi.org/10.1109/TPAMI.2015.2461544).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from medmtl.data.prepared import Preparation
from medmtl.errors import InputError
from medmtl.rng import generator

CHANNEL_DROPOUT = 0.2  # chance per step and optional channel that one which is there is blanked


def held_channels(statistics: Sequence[Mapping[str, float]]) -> tuple[bool, ...]:
    """Whether a prepared case has each of the channels, by its statistics."""
    return tuple(bool(own) for own in statistics)


def drop_channels(held: Sequence[bool], preparation: Preparation, seed: int, step: int, slot: int) -> tuple[bool, ...]:
    """The channels that a training sample shows; one that the case has is always left.

    Args:
        held: whether the case has each channel.
        preparation: says which are optional.
        seed, step, slot: what the draw depends on.
    """
    if not preparation.optional:
        return tuple(held)
    draws = generator(seed, "channels", step, slot).random(len(held))
    shown = [
        there and not (name in preparation.optional and draw < CHANNEL_DROPOUT)
        for name, there, draw in zip(preparation.channels, held, draws, strict=True)
    ]
    if any(held) and not any(shown):
        shown[max((index for index, there in enumerate(held) if there), key=lambda index: float(draws[index]))] = True
    return tuple(shown)


def refuse_other_channels(found: Collection[str], channels: Sequence[str], optional: Collection[str]) -> None:
    """Refuse images that are not those of a model: each of its channels once, but for optional ones.

    Raises:
        InputError: B162; naming what is wanted and what was found.
    """
    needed = {name for name in channels if name not in optional}
    if found and needed <= set(found) <= set(channels):
        return
    wanted = ", ".join(f"{name} (optional)" if name in optional else name for name in channels)
    raise InputError(
        f"the model wants the channels {wanted}; found {', '.join(found) or 'none'}; give one file for each",
        code="B162",
    )


def with_indicators(image_CDHW: torch.Tensor, shown: Sequence[bool], preparation: Preparation) -> torch.Tensor:
    """The image with zeros for what is not shown, and behind it one channel of ones or zeros per optional channel.

    Args:
        image_CDHW: one sample or one padded case, normalised; the indicators are constant over all of it, whatever
            was padded.
        shown: whether each channel is shown.
        preparation: says which are optional; without any the image is returned as it is.
    """
    if not preparation.optional:
        return image_CDHW
    mask_C = torch.tensor(shown, device=image_CDHW.device)
    # not a product: 0 times what a blanked channel holds need not be 0
    image_CDHW = torch.where(mask_C[:, None, None, None], image_CDHW, 0.0)
    flags = mask_C[[preparation.channels.index(name) for name in preparation.optional]].to(image_CDHW.dtype)
    return torch.cat([image_CDHW, flags[:, None, None, None].expand(-1, *image_CDHW.shape[1:])])
