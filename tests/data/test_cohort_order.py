from __future__ import annotations

from collections import Counter

import pytest

from medmtl.data.cohort_order import CohortOrder

SIZES = {"large": 16, "small": 4, "tiny": 1}
COHORTS = [name for name, size in SIZES.items() for _ in range(size)]
ROUND = 16 + 8 + 4  # sqrt(16 * 16), sqrt(4 * 16), sqrt(1 * 16)


def drawn(draws: int, batch: int = 4, seed: int = 0) -> list[int]:
    order = CohortOrder(COHORTS, batch, seed)
    return [order.case(*divmod(draw, batch)) for draw in range(draws)]


def test_cohorts_are_drawn_by_the_square_root_of_their_size() -> None:
    counts = Counter(COHORTS[place] for place in drawn(5 * ROUND))
    assert counts == {"large": 5 * 16, "small": 5 * 8, "tiny": 5 * 4}


@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
def test_cases_of_a_cohort_are_drawn_equally_often(rounds: int) -> None:
    counts = Counter(drawn(rounds * ROUND))
    for name in SIZES:
        own = [counts[place] for place, cohort in enumerate(COHORTS) if cohort == name]
        assert max(own) - min(own) <= 1


def test_a_draw_depends_on_seed_step_and_slot_alone() -> None:
    order = CohortOrder(COHORTS, 4, 0)
    backwards = [order.case(*divmod(draw, 4)) for draw in reversed(range(60))]
    assert backwards[::-1] == drawn(60) == drawn(60, batch=3)
    assert drawn(60) != drawn(60, seed=1)
    assert drawn(2 * ROUND)[:ROUND] != drawn(2 * ROUND)[ROUND:]


def test_a_case_without_a_cohort_is_never_drawn_and_counts_for_no_share() -> None:
    order = CohortOrder([*COHORTS, None, None], 4, 0)
    with_holes = [order.case(*divmod(draw, 4)) for draw in range(3 * ROUND)]
    assert with_holes == drawn(3 * ROUND)
    assert set(with_holes) == set(range(len(COHORTS)))
