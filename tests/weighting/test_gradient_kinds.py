"""Every kind on gradients holds the contract, under both places where gradients are looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from medmtl import weighting
from medmtl.weighting.base import Weighting
from medmtl.weighting.jacobian import Array, GradientOptions
from tests.weighting.contract import SUBSETS, TASKS, Toy, WeightingContract

KINDS = (
    "pcgrad", "gradvac", "graddrop", "mgda", "cagrad", "nash", "fairgrad", "imtl_g", "aligned", "config", "upgrad",
    "dualproj", "pcd", "gradnorm", "db_mtl",
)  # fmt: skip
CASES = [(name, {}) for name in KINDS] + [(name, {"gradient": "last_stage"}) for name in KINDS if name != "graddrop"]
STATEFUL = ("gradvac", "pcd", "gradnorm", "db_mtl")


def make(name: str, tasks: tuple[str, ...] = TASKS, **options: Any) -> Weighting:
    cls = weighting.kinds.get(name)
    return cls(cls.Options.model_validate({"kind": name, **options}), tasks)


@pytest.mark.parametrize(("name", "more"), CASES, ids=[f"{name}{'-last' if more else ''}" for name, more in CASES])
class TestGradientKinds(WeightingContract):
    cls: ClassVar[type[Weighting]]
    options: ClassVar[Mapping[str, Any]]

    @pytest.fixture(autouse=True)
    def chosen(self, name: str, more: dict[str, Any]) -> None:
        type(self).cls = weighting.kinds.get(name)
        type(self).options = {"kind": name, **more}
        type(self).has_state = name in STATEFUL


def test_these_are_all_kinds_that_need_gradients() -> None:
    found = {name for name in weighting.kinds.names() if weighting.kinds.get(name).needs == "gradients"}
    assert found == set(KINDS)


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
@pytest.mark.parametrize("name", STATEFUL)
def test_the_state_of_absent_tasks_is_untouched_and_that_of_present_ones_moves(name: str, present: list[str]) -> None:
    def parts(method: Weighting) -> dict[tuple[str, ...], Any]:
        """Each number of the state, under the names of the tasks that it belongs to."""
        found: dict[tuple[str, ...], Any] = {}
        for key, by_task in method.extra_state().items():
            for task, value in by_task.items():
                rows = value.items() if isinstance(value, dict) else [(None, value)]
                found |= {(key, task, *([other] if other else [])): number for other, number in rows}
        return found

    method = make(name)
    for _ in range(2):
        toy = Toy()
        method.backward(toy.losses(list(TASKS)), trained=toy.trained())
    before, toy = parts(method), Toy()
    method.backward(toy.losses(present), trained=toy.trained())
    after = parts(method)
    assert before.keys() == after.keys()
    moved = {key for key in before if before[key] != after[key]}
    assert all(set(key[1:]) <= set(present) for key in moved)
    if len(present) > 1 or name in ("pcd", "db_mtl"):
        assert moved


@pytest.mark.parametrize("name", STATEFUL)
def test_trap_7_a_fresh_method_takes_up_the_state(name: str) -> None:
    def step(method: Weighting, seed: int, present: list[str]) -> torch.Tensor:
        toy = Toy()
        torch.manual_seed(seed)
        method.backward({task: (1 + seed) * loss for task, loss in toy.losses(present).items()}, trained=toy.trained())
        assert toy.shared.grad is not None
        return toy.shared.grad

    whole, everyone = make(name, **({"decay": 0.5} if name == "gradvac" else {})), list(TASKS)
    for seed, present in enumerate(SUBSETS):
        step(whole, seed, present)
    resumed = make(name, **({"decay": 0.5} if name == "gradvac" else {}))
    resumed.load_state_dict(whole.state_dict())
    resumed.load_extra_state(json.loads(json.dumps(whole.extra_state())))
    for seed in range(3):
        assert torch.equal(step(whole, seed, everyone), step(resumed, seed, everyone))
    assert whole.extra_state() == resumed.extra_state() != make(name).extra_state()


@pytest.mark.parametrize("name", [name for name in KINDS if name != "db_mtl"])
def test_a_single_present_task_has_its_plain_gradient(name: str) -> None:
    toy, other = Toy(), Toy()
    make(name).backward(toy.losses(["grade"]), trained=toy.trained())
    other.losses(["grade"])["grade"].backward()
    for found, expected in zip(toy.gradients(), other.gradients(), strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gradient", ["shared", "last_stage"])
@pytest.mark.parametrize("name", ["gradnorm", "db_mtl"])
def test_a_single_present_task_has_the_weight_that_the_formula_gives_it(name: str, gradient: str) -> None:
    method, toy, other = make(name, gradient=gradient), Toy(), Toy()
    for _ in range(3):
        before = Toy()
        method.backward(before.losses(list(TASKS)), trained=before.trained())
    loss = other.losses(["grade"])["grade"]
    expected = method.extra_state()["weights"]["grade"] if name == "gradnorm" else 1 / float(loss.detach())
    assert expected != pytest.approx(1, rel=1e-3)
    found = method.backward(toy.losses(["grade"]), trained=toy.trained())
    assert found == {"grade": pytest.approx(expected, rel=1e-6)}
    (loss * expected).backward()
    assert toy.shared.grad is not None and other.shared.grad is not None
    torch.testing.assert_close(toy.shared.grad, other.shared.grad, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("name", "more"), CASES)
def test_heads_get_their_own_unweighted_gradient(name: str, more: dict[str, Any]) -> None:
    toy, other = Toy(), Toy()
    make(name, **more).backward(toy.losses(list(TASKS)), trained=toy.trained())
    sum(other.losses(list(TASKS)).values(), torch.tensor(0.0)).backward()
    for found, expected in zip(toy.heads, other.heads, strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6, atol=0)


SCALE_FREE = [name for name in KINDS if name != "db_mtl"]


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**20])
@pytest.mark.parametrize("name", SCALE_FREE)
def test_a_common_factor_on_all_losses_is_one_on_the_aggregate(name: str, factor: float) -> None:
    shared = []
    for multiply in (1.0, factor):
        toy = Toy()
        torch.manual_seed(0)
        losses = {task: loss * multiply for task, loss in toy.losses(list(TASKS)).items()}
        make(name).backward(losses, trained=toy.trained())
        assert toy.shared.grad is not None
        shared.append(toy.shared.grad.double() / multiply)
    torch.testing.assert_close(*shared, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", KINDS)
def test_more_than_sixteen_tasks_are_refused(name: str) -> None:
    tasks = tuple(f"t{index}" for index in range(17))
    with pytest.raises(ValueError, match=rf"weighting\.kind '{name}' balances at most 16 tasks, and tasks has 17"):
        make(name, tasks)
    make(name, tasks[:16])


def test_a_method_without_weights_cannot_take_them_from_the_last_stage() -> None:
    with pytest.raises(ValueError, match=r"graddrop.*gives no weights.*last_stage"):
        make("graddrop", gradient="last_stage")
    assert all(issubclass(weighting.kinds.get(name).Options, GradientOptions) for name in KINDS)


UNDOING = ("imtl_g", "config", "nash", "db_mtl")
KEEPING = ("pcgrad", "gradvac", "upgrad", "dualproj")
AGREEING = np.array([[1.0, 0.2, 0], [0.3, 1, 0], [0.2, 0.1, 1]])
OPPOSED = np.array([[1.0, 0.2, -0.9], [0.3, 1, 0.1], [0.2, 0.1, 1]])


def direction(name: str, rows: Array) -> tuple[Array, Array]:
    """The aggregate's unit vector, and the weights."""
    torch.manual_seed(0)
    weights = make(name).weigh(rows @ rows.T, dict.fromkeys(TASKS, 1.0))  # type: ignore[operator]
    return weights @ rows / np.linalg.norm(weights @ rows), weights


def short(rows: Array) -> Array:
    """What ``training.head_gradient`` does to the row of a case task."""
    return rows * np.array([[1.0], [1], [0.02]])


@pytest.mark.parametrize("name", UNDOING)
def test_a_row_of_a_fiftieth_of_its_length_changes_no_direction(name: str) -> None:
    for rows in (AGREEING, OPPOSED):
        np.testing.assert_allclose(direction(name, short(rows))[0], direction(name, rows)[0], atol=1e-6)


@pytest.mark.parametrize("name", KEEPING)
def test_a_short_row_counts_little_where_it_agrees_and_fully_where_it_does_not(name: str) -> None:
    before, after = direction(name, AGREEING)[0], direction(name, short(AGREEING))[0]
    assert before[2] > 0.4 and 0 < after[2] < 0.03
    alone = OPPOSED[:2].sum(axis=0)
    assert OPPOSED[2] @ alone < 0
    assert OPPOSED[2] @ direction(name, short(OPPOSED))[0] > -1e-9


@pytest.mark.parametrize("name", ["mgda", "cagrad"])
def test_the_shortest_row_gets_the_largest_weight(name: str) -> None:
    weights = direction(name, short(AGREEING))[1]
    assert weights.argmax() == 2 and weights[2] > 0.6
