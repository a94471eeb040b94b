"""What a shared page leaves out: tables' counts and scores of so few patients that they would tell of single ones.

Totals stand elsewhere on the page, so what is left out must not follow from the rest by subtraction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from medmtl.data.split import Balance
from medmtl.tasks.base import ScoredCase

SHARED_MINIMUM = 5  # patients


def patients_of(cases: Iterable[ScoredCase]) -> int:
    """How many patients these cases are of; one person's five scans are one person's values."""
    return len({case.patient for case in cases})


def withheld(patients: Mapping[str, int]) -> frozenset[str]:
    """The groups of a table that a shared page leaves out.

    Those of fewer than 5 patients, and where there are any, the next smallest until they are two groups or more and 5
    patients or more together: that much could be told by subtraction.

    Args:
        patients: group -> number of its patients, at least one.
    """
    found: list[str] = []
    for name in sorted(patients, key=lambda name: (patients[name], name)):
        together = sum(patients[other] for other in found)
        if patients[name] >= SHARED_MINIMUM and (not found or (len(found) > 1 and together >= SHARED_MINIMUM)):
            break
        found.append(name)
    return frozenset(found)


def holds_few_of_a_class(groups: Iterable[Sequence[ScoredCase]], classes: Sequence[str]) -> bool:
    """Whether a group holds fewer than 5 patients of a class, or none."""
    return any(
        patients_of(case for case in cases if case.truth == name) < SHARED_MINIMUM
        for cases in groups
        for name in classes
    )


def family(label: str) -> str:
    """What a label of the split is one of: ``site`` for ``site=A``, the task for ``grade:high``."""
    return re.split("[=:]", label, maxsplit=1)[0]


def small_families(balance: Iterable[Balance]) -> tuple[str, ...]:
    """Families of labels of which a part may hold fewer than 5 patients of one, or none.

    A whole family is left out, as its labels add up to the cases of the part. Of ``c`` cases with a label, in a part
    of ``n`` cases of ``p`` patients, at least ``c - (n - p)`` are of different patients.
    """
    return tuple(
        dict.fromkeys(
            family(label)
            for row in balance
            for label, count in row.labels.items()
            if count - (row.cases - row.patients) < SHARED_MINIMUM
        )
    )
