"""Which case a slot takes: coverage, shares, and nothing but (seed, step, slot)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from medmtl.data.order import CaseOrder
from medmtl.rng import generator

CASES = [f"c{number:02}" for number in range(30)]
MASK = dict.fromkeys(CASES[:20], "file")
GRADE = {name: "high" if place % 3 == 0 else "low" for place, name in enumerate(CASES[18:24])}
RISK = dict.fromkeys(CASES[:28:4], 1.0)
TRUTHS = {"mask": MASK, "grade": GRADE, "risk": RISK}


def drawn(order: CaseOrder, draws: int, batch: int) -> Iterator[int]:
    for number in range(draws):
        yield order.case(*divmod(number, batch))


def labelled(batch: int = 4, seed: int = 3, balanced: bool = False) -> CaseOrder:
    return CaseOrder.labelled(CASES, TRUTHS, {"grade": GRADE} if balanced else {}, batch, seed)


def test_the_even_order_is_the_permutation_of_each_epoch() -> None:
    """Written out as it was before orders had a module of their own, so that old runs go on as they began."""
    order = CaseOrder.even(range(7), 3, 11)
    for step in range(20):
        for slot in range(3):
            epoch, place = divmod(step * 3 + slot, 7)
            assert order.case(step, slot) == generator(11, "epoch", epoch).permutation(7)[place]
    assert order.span == 7


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_after_one_epoch_every_labelled_case_was_drawn_and_no_other_ever_is(batch: int, balanced: bool) -> None:
    order = labelled(batch, balanced=balanced)
    wanted = {place for place, name in enumerate(CASES) if any(name in targets for targets in TRUTHS.values())}
    assert len(wanted) < len(CASES)
    assert set(drawn(order, order.span, batch)) == wanted == set(drawn(order, 5 * order.span, batch))
    # not by luck: one draw of the longest queue less, and a case is missing from it
    queue = list(drawn(order, order.span, batch))[::3]
    assert sorted(queue) == list(range(20)) or balanced


def test_each_task_takes_all_of_its_cases_once_before_any_twice() -> None:
    draws = list(drawn(labelled(), 3 * 20 * 6, 4))
    for queue, targets in enumerate(TRUTHS.values()):
        own = [place for place, name in enumerate(CASES) if name in targets]
        found = draws[queue::3]
        passes = [found[start : start + len(own)] for start in range(0, len(found) - len(own) + 1, len(own))]
        assert len(passes) >= 6
        assert all(sorted(one) == own for one in passes)
        assert len({tuple(one) for one in passes}) > 1


def test_each_task_is_met_about_equally_often_whatever_share_is_labelled() -> None:
    draws = [CASES[place] for place in drawn(labelled(), 3 * 20 * 6 * 7, 4)]
    shares = {task: np.mean([name in targets for name in draws]) for task, targets in TRUTHS.items()}
    assert min(shares.values()) >= 1 / 3
    even = [CASES[place] for place in drawn(CaseOrder.even(range(len(CASES)), 4, 3), 900, 4)]
    assert np.mean([name in GRADE for name in even]) == pytest.approx(6 / 30)
    assert max(shares.values()) / min(shares.values()) < 2 < 20 / 6
    # in every two steps of four, each task has two draws of its own or more
    for step in range(0, 100, 2):
        served = Counter((4 * step + place) % 3 for place in range(8))
        assert min(served.values()) >= 2


def test_tasks_with_the_same_labelled_cases_share_a_queue() -> None:
    whole = {"one": dict.fromkeys(CASES, 1), "two": dict.fromkeys(CASES, 2)}
    order, even = CaseOrder.labelled(CASES, whole, {}, 2, 5), CaseOrder.even(range(len(CASES)), 2, 5)
    assert list(drawn(order, 200, 2)) == list(drawn(even, 200, 2))
    assert order.span == even.span == 30


def test_groups_are_drawn_in_turn_and_each_goes_through_its_cases() -> None:
    draws = [CASES[place] for place in drawn(labelled(balanced=True), 3 * 120, 4)]
    own = draws[1::3]
    assert [GRADE[name] for name in own] == ["high", "low"] * 60
    for grade in ("high", "low"):
        members = sorted(name for name, found in GRADE.items() if found == grade)
        found = [name for name in own if GRADE[name] == grade]
        starts = range(0, len(found) - len(members) + 1, len(members))
        assert all(sorted(found[start : start + len(members)]) == members for start in starts)


def test_a_queue_in_groups_serves_the_other_tasks_with_the_same_cases() -> None:
    classes = {name: "rare" if place < 3 else "common" for place, name in enumerate(CASES)}
    order = CaseOrder.labelled(CASES, {"mask": dict.fromkeys(CASES), "grade": classes}, {"grade": classes}, 2, 0)
    draws = list(drawn(order, 54, 2))
    assert Counter(classes[CASES[place]] for place in draws) == {"rare": 27, "common": 27}
    assert order.span == 54 and set(draws) == set(range(30))


def test_a_draw_follows_from_seed_step_and_slot_alone() -> None:
    one, other = labelled(balanced=True), labelled(balanced=True)
    forwards = [one.case(step, slot) for step in range(50) for slot in range(4)]
    backwards = [other.case(step, slot) for step in reversed(range(50)) for slot in reversed(range(4))]
    assert forwards == backwards[::-1]
    assert forwards != [labelled(seed=4, balanced=True).case(step, slot) for step in range(50) for slot in range(4)]


def test_queues_do_not_repeat_each_other() -> None:
    """Two tasks whose cases differ by one have permutations of their own."""
    truths = {"one": dict.fromkeys(CASES), "two": dict.fromkeys(CASES[:-1])}
    draws = list(drawn(CaseOrder.labelled(CASES, truths, {}, 2, 0), 58, 2))
    assert draws[::2] != draws[1::2]
    assert np.mean(np.array(draws[::2]) == np.array(draws[1::2])) < 0.3
