"""The cases of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from medmtl.data.case import Case
from medmtl.data.split import Splits
from medmtl.errors import InputError


def members(cases: Sequence[Case], splits: Splits, fold: int | Literal["none"]) -> tuple[list[Case], list[Case]]:
    """Training and validation cases of a fold; ``none`` trains on all but the test part.

    Args:
        cases: of the cohort.
        splits: of its patients.
        fold: number of the fold, or ``none``.

    Raises:
        InputError: if there is no such fold.
    """
    if fold == "none":
        held = set(splits.test)
        return [case for case in cases if case.case_id not in held], []
    if not 0 <= fold < len(splits.folds):
        raise InputError(f"fold {fold} does not exist; the split has folds 0 to {len(splits.folds) - 1}")
    named = {case.case_id: case for case in cases}
    chosen = splits.folds[fold]
    return [named[name] for name in chosen.train], [named[name] for name in chosen.val]
