from __future__ import annotations

import torch

from medmtl.model import SecondView
from medmtl.sharing.mmoe import Mmoe
from tests.networks.contract import FLAT, image
from tests.sharing.contract import SharingContract, build
from tests.sharing.models import model_of

OPTIONS = {"kind": "mmoe"}


class TestMmoe(SharingContract):
    cls = Mmoe
    options = OPTIONS


def test_experts_are_drawn_apart_and_as_many_as_asked_for() -> None:
    model = build(Mmoe, {**OPTIONS, "experts": 3})
    first = [next(expert.parameters()) for expert in model.get_submodule("experts").children()]
    assert len(first) == 3
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


def test_each_task_mixes_by_its_own_gate() -> None:
    model = build(Mmoe, OPTIONS)
    gate = model.get_submodule("gates.grade_gate")
    gate.linear.bias.data = torch.tensor([200.0, -200.0])  # type: ignore[union-attr]
    found = model.features(image(FLAT), ["grade", "age"])
    one, other = (expert(image(FLAT)) for expert in model.get_submodule("experts").children())
    for index in range(3):
        assert torch.equal(found["grade"].encoder[index], one[index])
        torch.testing.assert_close(found["age"].encoder[index], (one[index] + other[index]) / 2)


def test_experts_have_norms_of_their_own_for_a_view_of_another_spacing() -> None:
    model = model_of(Mmoe, OPTIONS, ["organ", "grade"], SecondView(("grade",), own_norms=True))
    seconds = {name for name in model.state_dict() if "second_" in name}
    assert seconds and all(name.startswith("sharing.experts") for name in seconds)
