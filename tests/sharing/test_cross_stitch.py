from __future__ import annotations

from typing import Any

import torch

from medmtl.model import SecondView
from medmtl.networks.encoder import channels_last
from medmtl.sharing.cross_stitch import CrossStitch
from medmtl.sharing.soft import Soft
from tests.networks.contract import FLAT, image
from tests.sharing.contract import VOXEL, SharingContract, build, energy
from tests.sharing.models import groups_of, model_of

OPTIONS = {"kind": "cross_stitch"}
TWO = {"organ": True, "grade": False}


class TestCrossStitch(SharingContract):
    cls = CrossStitch
    options = OPTIONS


def test_it_starts_as_separate_towers_to_the_bit() -> None:
    stitched, towers = build(CrossStitch, OPTIONS), build(Soft, {"kind": "soft"})
    generator = torch.Generator().manual_seed(1)
    for name, parameter in towers.named_parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        stitched.get_parameter(name).data = parameter.data
    for found, expected in zip(
        *(kind.features(image(FLAT), list(VOXEL)).values() for kind in (stitched, towers)), strict=True
    ):
        pairs = zip((*found.encoder, *found.decoder), (*expected.encoder, *expected.decoder), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_maps_are_mixed_after_every_stage_as_the_numbers_say() -> None:
    model = build(CrossStitch, OPTIONS, TWO)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    a = b = channels_last(image(FLAT))
    expected = []
    for index in range(3):
        stitch: Any = model.get_submodule(f"stitches.{index}")
        one, other = (
            model.get_submodule(f"encoders.{name}_encoder.stages.{index}")(m)
            for name, m in (("organ", a), ("grade", b))
        )
        a = stitch["organ_row"][0] * one + stitch["organ_row"][1] * other
        b = stitch["grade_row"][0] * one + stitch["grade_row"][1] * other
        expected.append((a, b))
    found = model.features(image(FLAT), ["organ", "grade"])
    for index, (organ, grade) in enumerate(expected):
        torch.testing.assert_close(found["organ"].encoder[index], organ)
        torch.testing.assert_close(found["grade"].encoder[index], grade)


def test_a_mixture_learns_from_the_identity_on() -> None:
    model = build(CrossStitch, OPTIONS, TWO)
    # unlike towers, so that there is something in the other one
    for parameter in model.get_submodule("encoders.grade_encoder").parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    energy(model.features(image(FLAT), ["organ"])["organ"]).backward()
    rows = {name: p.grad for name, p in model.named_parameters() if name.startswith("stitches")}
    assert rows.pop("stitches.2.grade_row") is None
    assert all(gradient is not None for gradient in rows.values())
    for index in range(3):
        gradient = rows[f"stitches.{index}.organ_row"]
        assert gradient is not None
        assert gradient[1] != 0


def test_mixtures_are_not_decayed_and_the_trunk_is_one_clipping_group() -> None:
    model = model_of(CrossStitch, OPTIONS)
    groups = groups_of(model).param_groups
    assert {group["clip_group"] for group in groups} == {"trunk", "trunk of case tasks", "grade"}
    decayed = {p for group in groups if group["weight_decay"] for p in group["params"]}
    stitches = set(model.get_submodule("sharing.stitches").parameters())
    assert len(stitches) == 9 and not stitches & decayed


def test_no_two_parameters_are_one_memory() -> None:
    parameters = list(build(CrossStitch, OPTIONS).parameters())
    assert len({p.untyped_storage().data_ptr() for p in parameters}) == len(parameters)


def test_encoders_have_norms_of_their_own_for_a_view_of_another_spacing() -> None:
    model = model_of(CrossStitch, OPTIONS, ["organ", "grade"], SecondView(("grade",), own_norms=True)).eval()
    plain = model_of(CrossStitch, OPTIONS, ["organ", "grade"]).eval()
    assert torch.equal(model(image(FLAT), ["grade"])["grade"], plain(image(FLAT), ["grade"])["grade"])
    model.zero_grad()
    output = model(image(FLAT), ["grade"])["grade"]
    (output - 1).square().mean().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and "encoders" in name}
    assert {name.split(".")[2] for name in reached} == {"organ_encoder", "grade_encoder"}
    assert all("second_" in name for name in reached if "norm" in name)
