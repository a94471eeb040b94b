from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from medmtl.data.crop import Triple
from medmtl.data.order import CaseOrder
from medmtl.data.shape_order import ShapeOrder

SMALL, LONG, LARGE = (8, 8, 8), (8, 8, 16), (16, 16, 16)
CASES = 80


def drawn(shapes: list[Triple], steps: int, batch: int = 4, seed: int = 0) -> list[list[int]]:
    order = ShapeOrder(CaseOrder.even(range(len(shapes)), batch, seed), shapes, batch, seed)
    return [[order.case(step, slot) for slot in range(batch)] for step in range(steps)]


def mixed(count: int = CASES) -> list[Triple]:
    chosen = np.random.default_rng(0).choice(3, count, p=[0.5, 0.3, 0.2])
    return [(SMALL, LONG, LARGE)[which] for which in chosen]


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_every_case_comes_once_in_each_pass(passes: int) -> None:
    counts = Counter(place for step in drawn(mixed(), passes * CASES // 4) for place in step)
    assert counts == dict.fromkeys(range(CASES), passes)


def test_all_but_the_rest_of_each_shape_comes_beside_its_like() -> None:
    shapes = mixed()
    pure = [len({shapes[place] for place in step}) == 1 for step in drawn(shapes, CASES // 4)]
    assert sum(pure) >= sum(count // 4 for count in Counter(shapes).values())
    assert len(pure) - sum(pure) <= 2


def test_what_is_left_is_sorted_by_size() -> None:
    shapes: list[Triple] = [LARGE, SMALL, LONG, LARGE, SMALL, LONG, SMALL, LONG]  # three, three and two
    held = {tuple(sorted(shapes[place] for place in step)) for step in drawn(shapes, 2)}
    assert held == {(SMALL, SMALL, SMALL, LONG), (LONG, LONG, LARGE, LARGE)}


def test_no_step_holds_a_case_twice() -> None:
    shapes = [SMALL] * 2 + [LARGE] * 78
    assert all(len(set(step)) == 4 for step in drawn(shapes, 200))


def test_large_steps_come_among_small_ones() -> None:
    shapes = [SMALL] * 128 + [LARGE] * 128
    large = [shapes[step[0]] == LARGE for step in drawn(shapes, 64)]
    assert sum(large) == 32
    assert 8 <= sum(large[:32]) <= 24


def test_a_draw_depends_on_seed_step_and_slot_alone() -> None:
    shapes = mixed()
    order = ShapeOrder(CaseOrder.even(range(CASES), 4, 0), shapes, 4, 0)
    backwards = [[order.case(step, slot) for slot in range(4)] for step in reversed(range(50))]
    assert backwards[::-1] == drawn(shapes, 50)
    assert drawn(shapes, 20) != drawn(shapes, 20, seed=1)
    assert drawn(shapes, 40)[:20] != drawn(shapes, 40)[20:]


@pytest.mark.parametrize(("shapes", "batch"), [([LONG] * CASES, 4), (mixed(), 1)], ids=["one shape", "one case"])
def test_where_nothing_is_padded_the_draws_are_as_they_were(shapes: list[Triple], batch: int) -> None:
    even = CaseOrder.even(range(CASES), batch, 0)
    assert drawn(shapes, 50, batch) == [[even.case(step, slot) for slot in range(batch)] for step in range(50)]


def test_fewer_cases_than_a_step_takes() -> None:
    assert [sorted(step) for step in drawn([SMALL, LARGE], 3, batch=4)] == [[0, 0, 1, 1]] * 3


def test_passes_are_those_of_the_order_beneath() -> None:
    even = CaseOrder.even(range(CASES), 4, 0)
    order = ShapeOrder(even, mixed(), 4, 0)
    assert order.span == even.span == 80


def test_a_case_may_come_behind_its_pass_but_not_behind_the_round_in_which_that_ends() -> None:
    shapes = mixed(10)  # a pass of 2.5 steps in rounds of 2
    for seed in range(20):
        assert {place for step in drawn(shapes, 4, seed=seed) for place in step} == set(range(10))
    late = [len({place for step in drawn(shapes, 3, seed=seed) for place in step}) < 10 for seed in range(20)]
    assert any(late)
