"""Weights and targets of the decoder's levels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medmtl.losses.deep_supervision import deep_supervision


def mean_of_target(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    assert target.shape == (logits.shape[0], *logits.shape[2:])
    return target.float().flatten(1).mean(1)


def test_levels_weigh_1_half_quarter_and_see_torchs_nearest_target() -> None:
    target = torch.randint(5, (2, 8, 8, 4), generator=torch.Generator().manual_seed(0))
    shapes = [(8, 8, 4), (4, 4, 4), (2, 2, 2)]
    logits = [torch.zeros(2, 1, *shape) for shape in shapes]
    means = [
        functional.interpolate(target[:, None].float(), shape, mode="nearest").flatten(1).mean(1) for shape in shapes
    ]
    expected = (means[0] + means[1] / 2 + means[2] / 4) / 1.75
    torch.testing.assert_close(deep_supervision(mean_of_target, logits, target), expected)


def test_one_level_is_the_loss_itself() -> None:
    target = torch.ones(1, 2, 2, 2)
    assert deep_supervision(mean_of_target, [torch.zeros(1, 1, 2, 2, 2)], target).tolist() == [1.0]


def test_a_level_that_is_no_whole_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match="whole strides"):
        deep_supervision(mean_of_target, [torch.zeros(1, 1, 3, 2, 2)], torch.zeros(1, 8, 4, 4))
