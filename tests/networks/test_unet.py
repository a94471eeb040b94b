from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from pydantic import ValidationError
from torch import nn

from medmtl.networks.decoder import UnetDecoder
from medmtl.networks.shape import NetworkShape
from medmtl.networks.unet import UnetEncoder, UnetOptions
from tests.networks.contract import CUBE, FLAT, EncoderContract, image


class TestUnetEncoder(EncoderContract):
    cls = UnetEncoder


class TestResidualUnetEncoder(EncoderContract):
    cls = UnetEncoder
    options: ClassVar[Mapping[str, Any]] = {"blocks": "residual"}


class OneMap(nn.Module):
    """Encoder and decoder as one network that gives the finest decoder map."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.encoder, self.decoder = UnetEncoder(shape), UnetDecoder(shape)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        finest: torch.Tensor = self.decoder(self.encoder(value))[0]
        return finest


def monai_name(ours: str) -> str:
    """The name of one of our weights in MONAI's ``DynUNet`` of three stages."""
    module, stage, rest = re.fullmatch(r"(encoder|decoder)\.stages\.(\d)\.(.*)", ours).groups()  # type: ignore[union-attr]
    if module == "decoder":
        return f"upsamples.{1 - int(stage)}.{rest}"
    return {"0": "input_block.", "1": "downsamples.0.", "2": "bottleneck."}[stage] + rest


@pytest.mark.parametrize("blocks", ["plain", "residual"])
@pytest.mark.parametrize("shape", [CUBE, replace(FLAT, kernels=((3, 3, 1),) * 3)], ids=["cube", "flat"])
def test_it_is_monais_dynamic_unet(shape: NetworkShape, blocks: Literal["plain", "residual"]) -> None:
    # one kernel for all stages, because MONAI joins two stages with the coarser one's kernel, nnU-Net with the finer's
    shape = replace(shape, blocks=blocks)
    reference = DynUNet(
        3,
        shape.in_channels,
        2,
        shape.kernels,
        shape.strides,
        shape.strides[1:],
        filters=shape.channels,
        norm_name=("INSTANCE", {"affine": True}),
        res_block=blocks == "residual",
    )
    reference.output_block = nn.Identity()
    ours = OneMap(shape)
    weights = {monai_name(name): tensor for name, tensor in ours.state_dict().items()}
    unmatched = reference.load_state_dict(weights, strict=False)
    assert not unmatched.unexpected_keys
    assert all(name.startswith("skip_layers.") for name in unmatched.missing_keys)  # the same modules once more
    torch.testing.assert_close(ours(image(shape)), reference(image(shape)), rtol=1e-3, atol=1e-4)


def test_a_residual_encoder_is_not_a_plain_one() -> None:
    plain, residual = UnetEncoder(CUBE), UnetEncoder(replace(CUBE, blocks="residual"))
    assert len(list(residual.parameters())) == len(list(plain.parameters())) + 3 * 3


@pytest.mark.parametrize("wrong", [{"blocks": "dense"}, {"decoder": "none"}, {"depth": 5}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        UnetOptions.model_validate({"kind": "unet", **wrong})
