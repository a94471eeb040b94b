"""Rows are exact on a real network, and what is filled is right whatever is frozen, absent, constant or not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchjd.autojac import mtl_backward

from medmtl.weighting.base import Trained
from medmtl.weighting.jacobian import all_rows, fill, gram_of, row_of
from tests.networks.contract import FLAT, image
from tests.test_model import energy, make
from tests.weighting.contract import TASKS, Toy
from tests.weighting.test_gradient_kinds import make as method

Losses = Callable[[], dict[str, torch.Tensor]]


@pytest.fixture(params=[False, True], ids=["fp32", "bf16"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Trained, Losses]:
    """A U-Net with skips and norms, two voxel tasks on one decoder and a case task, and its losses."""
    model = make()

    def losses() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)  # dropout
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=request.param):
            outputs = model(image(FLAT))
        return {name: energy({name: output}) for name, output in outputs.items()}

    return model, model.trained(), losses


def alone(loss: torch.Tensor, parameters: list[nn.Parameter]) -> list[torch.Tensor | None]:
    # in the same graph: case heads standardise over a batch of two, and the last bit of a pass is not the next one's
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))


def test_traps_1_and_2_every_row_is_that_of_autograd(network: tuple[nn.Module, Trained, Losses]) -> None:
    _, trained, make_losses = network
    shared, own, losses = list(trained.shared), list(trained.own), make_losses()
    expected = [alone(loss, shared) for loss in losses.values()]
    expected_own = [alone(loss, own) for loss in losses.values()]
    rows = all_rows(losses, shared, own)
    for row, parts in zip(rows, expected, strict=True):
        for found, part in zip(row, parts, strict=True):
            assert (found is None) == (part is None)
            assert found is None or part is None or torch.equal(found, part)
    assert any(part is None for part in rows[2]) and all(part is not None for part in rows[0])
    for parameter, *parts in zip(own, *expected_own, strict=True):
        present = [part for part in parts if part is not None]
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, torch.stack(present).sum(dim=0), rtol=1e-6, atol=1e-9)


def test_trap_1_the_short_way_over_feature_maps_is_wrong_and_not_taken() -> None:
    """What torchjd's two-stage call makes of a map that is computed from another one."""
    first, second = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([3.0]))
    heads = [nn.Parameter(torch.tensor([1.0])) for _ in range(2)]

    def maps() -> tuple[torch.Tensor, torch.Tensor]:
        shallow = first * 1.5
        return shallow, shallow * second

    def losses(shallow: torch.Tensor, deep: torch.Tensor) -> list[torch.Tensor]:
        return [(heads[0] * (shallow + deep)).sum(), (heads[1] * deep).sum()]

    shallow, deep = maps()
    mtl_backward(losses(shallow, deep), features=[shallow, deep], retain_graph=True, parallel_chunk_size=1)
    theirs = first.jac[:, 0]  # type: ignore[attr-defined]
    rows = all_rows(dict(zip("ab", losses(*maps()), strict=True)), [first, second], heads)
    assert [float(part) for row in rows for part in row[:1] if part is not None] == [6.0, 4.5]
    assert theirs.tolist() != [6.0, 4.5]


def test_inner_products_are_those_of_the_rows_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [[torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)] for _ in range(3)]
    rows[1][0] = None  # type: ignore[call-overload]
    flat = np.array([np.concatenate([np.zeros(12) if a is None else a.flatten(), b]) for a, b in rows], np.float64)
    found = gram_of(rows)
    np.testing.assert_allclose(found, flat @ flat.T, rtol=1e-13)
    assert found.dtype == np.float64 and (found == found.T).all()


@pytest.mark.parametrize("name", ["mgda", "graddrop", "upgrad"])
def test_trap_5_frozen_and_unreached_parameters_keep_no_gradient(name: str) -> None:
    frozen, unused, used = (nn.Parameter(torch.ones(2)) for _ in range(3))
    frozen.requires_grad_(False)
    losses = {task: ((used + frozen) * weight).square().sum() for task, weight in zip("ab", (1, 2), strict=True)}
    method(name, ("a", "b")).backward(losses, trained=Trained([frozen, unused, used], [used, frozen], []))
    assert frozen.grad is None and unused.grad is None and used.grad is not None


@pytest.mark.parametrize("more", [{}, {"gradient": "last_stage"}], ids=["shared", "last"])
def test_nothing_is_filled_where_everything_shared_is_frozen_but_heads_learn(more: dict[str, Any]) -> None:
    toy = Toy()
    toy.shared.requires_grad_(False)
    method("mgda", **more).backward(toy.losses(["organ", "age"]), trained=toy.trained())
    shared, organ, grade, age = toy.gradients()
    assert shared is None and grade is None and organ is not None and age is not None


@pytest.mark.parametrize("more", [{}, {"gradient": "last_stage"}], ids=["shared", "last"])
@pytest.mark.parametrize("name", ["mgda", "nash", "imtl_g", "gradvac", "pcd"])
def test_traps_6_and_8_a_constant_loss_takes_no_part(name: str, more: dict[str, Any]) -> None:
    """A Cox loss of one patient is exactly 0, with or without a graph."""
    expected, toy = Toy(), Toy()
    method(name, **more).backward(expected.losses(["organ", "age"]), trained=expected.trained())
    for zero in (torch.tensor(0.0), (toy.shared * 0).sum()):
        toy = Toy()
        losses = {**toy.losses(["organ", "age"]), "grade": zero}
        torch.manual_seed(0)
        weights = method(name, **more).backward(losses, trained=toy.trained())
        assert weights is not None and set(weights) == set(TASKS)
        torch.testing.assert_close(toy.shared.grad, expected.shared.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["mgda", "gradvac", "cagrad", "pcd", "graddrop", "db_mtl"])
def test_trap_3_a_row_that_is_not_finite_is_seen_in_the_gradient_and_in_no_state(name: str) -> None:
    toy, balanced = Toy(), method(name)
    balanced.backward(toy.losses(list(TASKS)), trained=toy.trained())
    before, toy = balanced.extra_state(), Toy()
    losses = toy.losses(list(TASKS))
    losses["grade"] = losses["grade"] * math.inf
    balanced.backward(losses, trained=toy.trained())
    assert toy.shared.grad is not None and not toy.shared.grad.isfinite().all()
    assert balanced.extra_state() == before


def test_the_order_in_which_losses_are_given_changes_nothing() -> None:
    found = []
    for names in (TASKS, TASKS[::-1]):
        toy = Toy()
        losses = toy.losses(list(TASKS))
        torch.manual_seed(0)
        method("gradvac").backward({name: losses[name] for name in names}, trained=toy.trained())
        assert toy.shared.grad is not None
        found.append(toy.shared.grad)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["pcgrad", "graddrop", "gradvac"])
def test_draws_come_from_the_generator_that_each_step_seeds(name: str) -> None:
    def run(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        shared = nn.Parameter(torch.zeros(6))
        directions = torch.randn(3, 6, generator=generator)
        losses = {task: (shared * row).sum() for task, row in zip(TASKS, directions, strict=True)}
        torch.manual_seed(seed)
        method(name).backward(losses, trained=Trained([shared]))
        assert shared.grad is not None
        return shared.grad

    assert torch.equal(run(0), run(0))
    assert any(not torch.equal(run(0), run(seed)) for seed in range(1, 6))


def test_the_last_stage_gives_the_weights_and_all_shared_parameters_are_combined_with_them(
    network: tuple[nn.Module, Trained, Losses],
) -> None:
    model, trained, make_losses = network
    losses, last = make_losses(), list(trained.last_stage)
    balanced = method("mgda", tuple(losses), gradient="last_stage")
    rows = [row_of(loss, last, keep=True) for loss in losses.values()]
    expected = balanced.weigh(gram_of(rows), dict.fromkeys(losses, 1.0))  # type: ignore[operator]
    by_task = [alone(loss, list(trained.shared)) for loss in losses.values()]
    model.zero_grad()
    weights = balanced.backward(losses, trained=trained)
    assert weights is not None
    np.testing.assert_allclose(list(weights.values()), expected, rtol=1e-9)
    differences, sizes = [], []
    for parameter, *parts in zip(trained.shared, *by_task, strict=True):
        combined = sum((w * p for w, p in zip(expected, parts, strict=True) if p is not None), torch.tensor(0.0))
        assert parameter.grad is not None
        differences.append((parameter.grad - combined).norm())
        sizes.append(combined.norm())
    # one pass in bf16 rounds another sum
    assert torch.stack(differences).norm() < 0.02 * torch.stack(sizes).norm()


def test_gradients_lie_in_memory_of_their_own() -> None:
    """Autograd hands one tensor out for both terms of a sum; clipping would then multiply it twice."""
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    row = row_of((first + second).sum(), [first, second], keep=False)
    fill([first, second], [row], [1.0])
    assert first.grad is not None and second.grad is not None
    first.grad.mul_(3)
    assert second.grad.tolist() == [1, 1]


def test_a_weight_of_zero_keeps_what_is_infinite_out() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    fill([parameter], [[torch.tensor([math.inf])], [torch.tensor([2.0])]], [0.0, 1.0])
    assert parameter.grad is not None and parameter.grad.tolist() == [2.0]
