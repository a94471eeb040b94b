"""Iterative stratification: patients with several labels dealt into parts, each label spread as evenly as it can be.

Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011,
https://doi.org/10.1007/978-3-642-23808-6_10. The patients of the rarest label are dealt out first, each to the part
that wants most of that label; ties go to the part with most room, then to chance. Two points deviate from the paper.
Not carrying a label counts as a label of its own: where nine of ten patients are labelled, it is the tenth that must be
spread. And a part that is full takes no more, so that every part has exactly its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

EVERYBODY = ("", True)  # a mark that every patient carries: what a part still wants of it is the room it has left


def stratify(carried: Mapping[str, frozenset[str]], sizes: Sequence[int], rng: np.random.Generator) -> list[set[str]]:
    """Deal patients into parts.

    Args:
        carried: patient -> labels.
        sizes: of the parts; they sum to the number of patients.
        rng: the chance in ties.

    Returns:
        One set of patients per part.
    """
    patients = sorted(carried)
    vocabulary = sorted(set().union(*carried.values()))
    # patients with equal labels share one set: a large cohort has few different ones
    marks_of = {
        labels: frozenset({EVERYBODY, *((label, label in labels) for label in vocabulary)})
        for labels in set(carried.values())
    }
    order = (patients[index] for index in rng.permutation(len(patients)))
    waiting = {patient: marks_of[carried[patient]] for patient in order}
    holders = Counter(mark for marks in waiting.values() for mark in marks)
    wants = [{mark: count * size / len(patients) for mark, count in holders.items()} for size in sizes]
    parts: list[set[str]] = [set() for _ in sizes]
    left = holders.copy()
    while waiting:
        rarest = min(left, key=lambda mark: (left[mark], mark == EVERYBODY, mark))
        for patient in [patient for patient, marks in waiting.items() if rarest in marks]:
            needs = {i: (want[rarest], want[EVERYBODY]) for i, want in enumerate(wants) if want[EVERYBODY] > 0}
            neediest = [i for i, need in needs.items() if need == max(needs.values())]
            chosen = neediest[rng.integers(len(neediest))]
            parts[chosen].add(patient)
            dealt = waiting.pop(patient)
            left.subtract(dealt)
            for mark in dealt:
                wants[chosen][mark] -= 1
        left = +left  # without the marks that nobody waiting carries
    return parts
