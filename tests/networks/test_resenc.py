from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from medmtl.networks.resenc import ResencEncoder, ResencOptions
from tests.networks.contract import CUBE, FLAT, EncoderContract, image, measured


class TestResencEncoder(EncoderContract):
    cls = ResencEncoder


class TestResencEncoderOfOneBlock(EncoderContract):
    cls = ResencEncoder
    options: ClassVar[Mapping[str, Any]] = {"blocks_per_stage": [1, 2]}


@pytest.mark.parametrize(
    ("wanted", "stages", "blocks"),
    [(None, 3, (1, 3, 4)), (None, 8, (1, 3, 4, 6, 6, 6, 6, 6)), ((2, 1), 4, (2, 1, 1, 1)), ((1, 2, 3), 2, (1, 2))],
)
def test_blocks_are_nnu_nets_or_those_wanted(
    wanted: tuple[int, ...] | None, stages: int, blocks: tuple[int, ...]
) -> None:
    shape = replace(CUBE, channels=(4,) * stages, kernels=((3, 3, 3),) * stages, strides=((1, 1, 1),) * stages)
    shape = ResencOptions(kind="resenc", blocks_per_stage=wanted).measured(shape)
    assert shape.blocks_per_stage == blocks
    # a stem and the first stage's blocks; then blocks alone
    assert [len(stage) for stage in ResencEncoder(shape).stages] == [blocks[0] + 1, *blocks[1:]]


def test_parameters_are_those_of_the_layout_by_hand() -> None:
    shape = measured(ResencEncoder, CUBE)  # 1 -> 4, 6, 8 channels; 1, 3, 4 blocks; kernels of 27 weights
    stem, first = 4 * 27 + 8, 2 * (4 * 4 * 27 + 8)
    second = (4 * 6 + 12) + (4 * 6 * 27 + 12) + 5 * (6 * 6 * 27 + 12)
    third = (6 * 8 + 16) + (6 * 8 * 27 + 16) + 7 * (8 * 8 * 27 + 16)
    assert sum(p.numel() for p in ResencEncoder(shape).parameters()) == stem + first + second + third


def test_a_shortcut_averages_and_has_weights_only_where_channels_change() -> None:
    shape = measured(ResencEncoder, replace(FLAT, channels=(4, 4, 8)))
    encoder = ResencEncoder(shape)
    same, wider = encoder.stages[1][0], encoder.stages[2][0]
    given = torch.randn(1, 4, 8, 12, 8)
    for block in (same, wider):
        nn.init.zeros_(block.norm2.weight)  # the convolutions' branch gives nothing
    pooled = nn.functional.avg_pool3d(given, (2, 2, 1))
    torch.testing.assert_close(same(given), nn.functional.leaky_relu(pooled, 0.01))
    assert [p.shape for p in wider.conv3.parameters()] == [(8, 4, 1, 1, 1)]
    pooled = wider.norm3(wider.conv3[1](nn.functional.avg_pool3d(given, (2, 2, 2))))
    torch.testing.assert_close(wider(given), nn.functional.leaky_relu(pooled, 0.01))


def test_a_stride_of_one_axis_keeps_the_others() -> None:
    shape = measured(ResencEncoder, replace(FLAT, strides=((1, 1, 1), (1, 2, 1), (2, 1, 2))))
    maps = ResencEncoder(shape)(image(shape))
    assert [tuple(level.shape[2:]) for level in maps] == [(16, 24, 8), (16, 12, 8), (8, 12, 4)]


@pytest.mark.parametrize("wrong", [{"blocks_per_stage": []}, {"blocks_per_stage": [1, 0]}, {"blocks": "plain"}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ResencOptions.model_validate({"kind": "resenc", **wrong})
