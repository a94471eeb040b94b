"""Clinical covariates: what their cells say, what is learned of them from the training fold, and what a head reads.

A number becomes two features, its standardised value and whether it is missing. A category becomes one feature per
level of the training fold, and whether it is missing. Nothing here is drawn at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from medmtl.data.case import Case
from medmtl.data.cell import number, number_fault
from medmtl.data.finding import Fault
from medmtl.data.training_range import is_alike

CovariateKind = Literal["number", "category"]
Value = float | str | None
Kinds = Mapping[str, CovariateKind]

LIMIT = 10.0  # interquartile ranges from the median; what is farther counts as that far
MIN_CASES = 2  # of a level
LARGEST = 1e30  # what fp32 holds with room to spare


class CovariateFault(Fault, ValueError):
    """A cell holds no value of its covariate.

    Args:
        code: id of the rule.
        column: the covariate.
        found, expected, fix: as in :class:`medmtl.data.finding.Finding`.
    """

    def __init__(self, code: str, column: str, found: str, expected: str, fix: str) -> None:
        message = f"covariate {column}: found {found[:40]!r}; expected {expected}; {fix}"
        super().__init__(message, code, found=found, expected=expected, fix=fix, column=column)


@dataclass(frozen=True)
class NumberCovariate:
    """A number as the training fold has it.

    ::

        z = clip((value - median) / spread, -10, 10)

    The features are ``(z, 0)``, and ``(0, 1)`` where the value is missing, so that a missing value counts as the median
    until the indicator has learned otherwise. A covariate that does not vary in the training fold says nothing: its z
    is 0.

    Attributes:
        name: the column.
        median: of the training fold's values; 0 where it has none.
        spread: interquartile range; the standard deviation where more than half of the values are equal; 0 where all
            are.
        low, high: range of the training fold's values.
        missing: cases of the training fold without a value.
    """

    name: str
    median: float
    spread: float
    low: float
    high: float
    missing: int
    kind: Literal["number"] = "number"

    @property
    def width(self) -> int:
        """Number of features."""
        return 2

    def features(self, value: Value) -> list[float]:
        """What a head reads."""
        if not isinstance(value, float):
            return [0.0, 1.0]
        z = (value - self.median) / self.spread if self.spread else 0.0
        return [min(max(z, -LIMIT), LIMIT), 0.0]

    def knows(self, value: Value) -> bool:
        """Whether the training fold held something alike: a value in its range and a tenth beyond, or a missing one."""
        if not isinstance(value, float):
            return self.missing > 0
        return is_alike(value, self.low, self.high)


@dataclass(frozen=True)
class CategoryCovariate:
    """A category as the training fold has it.

    One feature per level, 1 for the case's own, and one for a missing value. A level that fewer than two cases of the
    training fold have counts as missing: it would be that case's name, and say nothing of others.

    Attributes:
        name: the column.
        levels: of the training fold, sorted.
        missing: cases of the training fold without a value, or with a level of their own.
    """

    name: str
    levels: tuple[str, ...]
    missing: int
    kind: Literal["category"] = "category"

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.levels) + 1

    def features(self, value: Value) -> list[float]:
        """What a head reads."""
        return [float(value == level) for level in self.levels] + [float(value not in self.levels)]

    def knows(self, value: Value) -> bool:
        """Whether it is a level, or the training fold held missing values too."""
        return self.missing > 0 if value is None else value in self.levels


Covariate = NumberCovariate | CategoryCovariate


def parse(name: str, kind: CovariateKind, cell: str | None) -> Value:
    """What a cell says; None is a missing value.

    Any text is a level of a category.

    Raises:
        CovariateFault: a number is written otherwise than ``12.5`` or ``1e-3``. B006 for a decimal comma or thousands
            apart, B116 for a word that means "missing" but is not in ``cohort.missing``, B118 for several numbers, B119
            for anything else.
    """
    if cell is None or kind == "category":
        return cell
    value = number(cell)
    if value is not None and abs(value) <= LARGEST:
        return value
    code, fix = number_fault(cell, "the value is missing")
    raise CovariateFault(code, name, cell, "a number such as 12.5 or 1e-3, or an empty cell", fix)


def read(kinds: Kinds, case: Case) -> dict[str, Value]:
    """A case's covariates by name.

    Args:
        kinds: the covariates that are wanted.
        case: its cells hold all of them.

    Raises:
        CovariateFault: a cell is no value, or there is none of that name (B162).
    """
    return {name: parse(name, kind, _cell(case, name)) for name, kind in kinds.items()}


def _cell(case: Case, name: str) -> str | None:
    if name not in case.cells:
        raise CovariateFault("B162", name, "nothing", "a value", "give it, or say that it is missing by an empty value")
    return case.cells[name]


def learn(kinds: Kinds, cases: Iterable[Case]) -> tuple[Covariate, ...]:
    """What the training fold says of each covariate, in the declared order.

    Args:
        kinds: the covariates that a task reads.
        cases: the training fold's.
    """
    rows = [read(kinds, case) for case in cases]
    return tuple(_learned(name, kind, [row[name] for row in rows]) for name, kind in kinds.items())


def _learned(name: str, kind: CovariateKind, found: Sequence[Value]) -> Covariate:
    if kind == "category":
        counts = Counter(value for value in found if isinstance(value, str))
        levels = tuple(sorted(level for level, count in counts.items() if count >= MIN_CASES))
        return CategoryCovariate(name, levels, len(found) - sum(counts[level] for level in levels))
    missing = sum(value is None for value in found)
    known = np.array([value for value in found if isinstance(value, float)], np.float64)
    if not len(known):
        return NumberCovariate(name, 0.0, 0.0, 0.0, 0.0, missing)
    first, median, third = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
    # not by the deviation alone, which rounding keeps from being 0 where all values are equal
    spread = third - first or (float(known.std()) if known.min() < known.max() else 0.0)
    return NumberCovariate(name, median, spread, float(known.min()), float(known.max()), missing)


def feature_count(covariates: Sequence[Covariate]) -> int:
    """How many features a head reads."""
    return sum(covariate.width for covariate in covariates)


def encode_case(covariates: Sequence[Covariate], case: Case) -> torch.Tensor:
    """A case's features, float32, shape (N,); N is 0 without covariates.

    Raises:
        CovariateFault: as :func:`read`.
    """
    found = read({covariate.name: covariate.kind for covariate in covariates}, case)
    return torch.tensor(
        [feature for covariate in covariates for feature in covariate.features(found[covariate.name])],
        dtype=torch.float32,
    )
