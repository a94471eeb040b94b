"""Lesions matched one to one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from medmtl.metrics.lesions import LesionScores, lesion_scores

Bools = npt.NDArray[np.bool_]


def line(*runs: tuple[int, int]) -> Bools:
    mask = np.zeros((40, 3, 3), bool)
    for start, stop in runs:
        mask[start:stop] = True
    return mask


def test_lesions_that_overlap_enough_are_found() -> None:
    found = lesion_scores(line((0, 5), (20, 30)), line((2, 6), (10, 12), (20, 30)))
    assert found == LesionScores(reference=3, found=2, false=0)
    assert (found.sensitivity, found.f1) == (pytest.approx(2 / 3), pytest.approx(4 / 5))


def test_a_tenth_of_overlap_is_not_enough() -> None:
    assert lesion_scores(line((0, 5)), line((4, 10))).found == 0  # exactly 1 of 10
    assert lesion_scores(line((0, 5)), line((4, 9))).found == 1  # 1 of 9


def test_one_prediction_finds_one_lesion_and_a_lesion_in_pieces_has_false_ones() -> None:
    merged = lesion_scores(line((0, 10)), line((0, 4), (6, 10)))
    assert merged == LesionScores(reference=2, found=1, false=0)
    assert lesion_scores(line((0, 4), (6, 10)), line((0, 10))) == LesionScores(reference=1, found=1, false=1)


def test_corners_connect() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    mask[3, 3, 0] = True
    assert lesion_scores(np.zeros_like(mask), mask).reference == 2


def test_empty_masks() -> None:
    nothing = lesion_scores(line(), line())
    assert (nothing.sensitivity, nothing.f1, nothing.false) == (None, None, 0)
    false = lesion_scores(line((0, 3)), line())
    assert (false.sensitivity, false.f1, false.false) == (None, 0.0, 1)
    assert lesion_scores(line(), line((0, 3))).sensitivity == 0.0
    with pytest.raises(ValueError, match="one shape"):
        lesion_scores(line(), line()[1:])


def flood(mask: Bools) -> list[set[tuple[int, ...]]]:
    """Components by walking from voxel to voxel."""
    left = {tuple(map(int, place)) for place in np.argwhere(mask)}
    parts = []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            place = edge.pop()
            part.add(place)
            near = [tuple(np.add(place, step).tolist()) for step in product((-1, 0, 1), repeat=3)]
            edge += [other for other in near if other in left]
            left -= set(near)
        parts.append(part)
    return parts


def brute_force(predicted: Bools, truth: Bools) -> tuple[int, int, int]:
    found, reference = flood(predicted), flood(truth)
    pairs = [(len(a & b) / len(a | b), i, j) for i, a in enumerate(found) for j, b in enumerate(reference)]
    left: Sequence[tuple[float, int, int]] = [pair for pair in pairs if pair[0] > 0.1]
    matched = 0
    while left:
        _, one, other = max(left)
        left = [pair for pair in left if pair[1] != one and pair[2] != other]
        matched += 1
    return len(reference), matched, len(found) - matched


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((9, 9, 9)) < 0.06
    predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.random(truth.shape) < 0.06)
    scores = lesion_scores(predicted, truth)
    assert (scores.reference, scores.found, scores.false) == brute_force(predicted, truth)
