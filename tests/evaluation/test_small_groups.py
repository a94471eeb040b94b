"""What a shared page leaves out, and that nobody can find it by subtraction."""

from __future__ import annotations

import pytest

from medmtl.data.split import Balance
from medmtl.evaluation.small_groups import holds_few_of_a_class, patients_of, small_families, withheld
from medmtl.tasks.base import Result, ScoredCase


def case(patient: str, scan: int, truth: str) -> ScoredCase:
    return ScoredCase(f"{patient}-{scan}", patient, "a", 0, truth, Result())


@pytest.mark.parametrize(
    ("patients", "left_out"),
    [
        ({"a": 5, "b": 30}, ""),
        ({"a": 4, "b": 30, "c": 20}, "ac"),  # a alone would be the total less the others
        ({"a": 1, "b": 2, "c": 30, "d": 20}, "abd"),  # three patients are still few
        ({"a": 3, "b": 2, "c": 30}, "ab"),
        ({"a": 1, "b": 30}, "ab"),
        ({"a": 1}, "a"),
        ({}, ""),
    ],
)
def test_small_groups_are_left_out_with_so_many_others_that_they_cannot_be_subtracted(
    patients: dict[str, int], left_out: str
) -> None:
    assert withheld(patients) == set(left_out)


def test_one_person_with_five_scans_is_one_patient() -> None:
    scans = [case("eve", scan, "high") for scan in range(5)]
    assert patients_of(scans) == 1
    others = [case(f"p{index}", 0, "low") for index in range(5)]
    assert holds_few_of_a_class([scans + others], ["low", "high"])
    assert not holds_few_of_a_class([others], ["low"])
    assert holds_few_of_a_class([others], ["low", "high"])  # that nobody is high tells of everybody


def test_a_family_of_labels_is_left_out_as_a_whole() -> None:
    labels = {"site=A": 16, "site=B:C": 4, "grade:low": 10, "grade:high": 10, "cohort=x": 20}
    rows = [Balance(0, "train", 60, 60, dict.fromkeys(labels, 20)), Balance(0, "val", 20, 20, labels)]
    assert small_families(rows) == ("site",)
    assert small_families(rows[:1]) == ()
    # eleven cases are further ones of somebody, and may all be of one class
    assert small_families([Balance(0, "val", 9, 20, labels)]) == ("site", "grade")
    assert small_families([Balance(0, "val", 20, 20, {"grade:low": 0, "grade:high": 20})]) == ("grade",)
