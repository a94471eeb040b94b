from __future__ import annotations

import torch
from torchjd.scalarization import IMTLL

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.imtl_l import ImtlL
from tests.weighting.contract import TASKS, Toy, WeightingContract


class TestImtlL(WeightingContract):
    cls = ImtlL
    options = {"kind": "imtl_l"}
    has_state = True


def test_it_is_torchjds() -> None:
    method = ImtlL(WeightingOptions(kind="imtl_l"), TASKS)
    ours, theirs, reference = Toy(), Toy(), IMTLL(3)
    reference.log_scale.data = torch.tensor([0.3, -1.0, 2.0])
    for name, value in zip(TASKS, reference.log_scale.data, strict=True):
        method.get_parameter(f"log_scale_{name}").data.copy_(value)
    weights = method.backward(ours.losses(list(TASKS)), trained=ours.trained())
    reference(torch.stack(list(theirs.losses(list(TASKS)).values()))).backward()
    for one, other in zip(ours.gradients(), theirs.gradients(), strict=True):
        torch.testing.assert_close(one, other)
    own = torch.stack([method.get_parameter(f"log_scale_{name}").grad for name in TASKS])
    torch.testing.assert_close(own, reference.log_scale.grad)
    torch.testing.assert_close(torch.tensor(list(weights.values())), reference.log_scale.detach().exp())
