from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from monai.networks.nets.segresnet import SegResNet
from pydantic import ValidationError

from medmtl.networks.segresnet import SegresnetEncoder, SegresnetOptions
from medmtl.networks.shape import NetworkShape
from tests.networks.contract import CUBE, EncoderContract, image, measured


class TestSegresnetEncoder(EncoderContract):
    cls = SegresnetEncoder


class TestSegresnetEncoderOfOneBlock(EncoderContract):
    cls = SegresnetEncoder
    options: ClassVar[Mapping[str, Any]] = {"blocks_per_stage": [1]}


def monai_name(ours: str) -> str:
    """The name of one of our weights in MONAI's ``SegResNet``."""
    stage, place, rest = re.fullmatch(r"stages\.(\d)\.(\d)\.(.*)", ours).groups()  # type: ignore[union-attr]
    rest = re.sub(r"(conv\d)\.", r"\1.conv.", rest)
    if place != "0":
        return f"down_layers.{stage}.{place}.{rest}"
    return "convInit.conv.weight" if stage == "0" else f"down_layers.{stage}.0.conv.weight"


def test_it_is_the_encoder_of_monais_segresnet() -> None:
    cube, step = (3, 3, 3), (2, 2, 2)
    shape = NetworkShape(2, (8, 16, 32, 64), (cube,) * 4, ((1, 1, 1), step, step, step))
    torch.manual_seed(0)
    reference = SegResNet(3, init_filters=8, in_channels=2, blocks_down=(1, 2, 2, 4))
    ours = SegresnetEncoder(measured(SegresnetEncoder, shape))
    weights = {monai_name(name): tensor for name, tensor in ours.state_dict().items()}
    unmatched = reference.load_state_dict(weights, strict=False)
    assert not unmatched.unexpected_keys
    assert not [name for name in unmatched.missing_keys if name.startswith(("convInit", "down_layers"))]
    _, expected = reference.encode(image(shape))
    for found, other in zip(ours(image(shape)), expected, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("wanted", "blocks"), [(None, (1, 2, 2)), ((3,), (3, 3, 3)), ((1, 2, 3, 4), (1, 2, 3))])
def test_blocks_are_the_papers_or_those_wanted(wanted: tuple[int, ...] | None, blocks: tuple[int, ...]) -> None:
    shape = SegresnetOptions(kind="segresnet", blocks_per_stage=wanted).measured(CUBE)
    assert shape.blocks_per_stage == blocks
    assert [len(stage) - 1 for stage in SegresnetEncoder(shape).stages] == list(blocks)


@pytest.mark.parametrize("wrong", [{"blocks_per_stage": [0]}, {"groups": 4}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SegresnetOptions.model_validate({"kind": "segresnet", **wrong})
