from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.data.case import Case
from medmtl.data.members import members
from medmtl.data.split import Fold, Splits
from medmtl.errors import InputError

CASES = [Case(name, name, None, row, {"t1": Path("x")}, files={}) for row, name in enumerate("dabc", 2)]
SPLITS = Splits((Fold(("a", "b"), ("c",)), Fold(("b", "c"), ("a",))), ("d",), ())


def names(cases: list[Case]) -> str:
    return "".join(case.case_id for case in cases)


def test_a_fold_has_its_cases_and_none_all_but_the_test_part_in_the_table_s_order() -> None:
    assert [names(part) for part in members(CASES, SPLITS, 0)] == ["ab", "c"]
    assert [names(part) for part in members(CASES, SPLITS, 1)] == ["bc", "a"]
    assert [names(part) for part in members(CASES[::-1], SPLITS, "none")] == ["cba", ""]


@pytest.mark.parametrize("fold", [-1, 2])
def test_a_fold_that_is_not_there_is_refused(fold: int) -> None:
    with pytest.raises(InputError, match=rf"^fold {fold} does not exist; the split has folds 0 to 1$"):
        members(CASES, SPLITS, fold)
