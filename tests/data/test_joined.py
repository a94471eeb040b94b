"""Several tables as one: nothing of any of them is lost, and no two ids meet."""

from __future__ import annotations

from pathlib import Path

from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.joined import join


def cohort(name: str, unidentified: int) -> Cohort:
    cases = tuple(Case(case_id, "p", "ward", row, {}) for row, case_id in ((2, "kept"), (3, "refused")))
    return Cohort(Path(name) / "cohort.csv", cases[:1], name, ("id", name), cases[1:], unidentified)


def test_rows_that_were_left_out_are_those_of_all_tables() -> None:
    found = join({"b": cohort("b", 2), "a": cohort("a", 1)}, frozenset({"b"}))
    assert [case.case_id for case in found.cases] == ["b/kept", "a/kept"]
    assert [case.case_id for case in found.left_out] == ["b/refused", "a/refused"]
    assert [case.case_id for case in found.identified] == ["a/kept", "a/refused", "b/kept", "b/refused"]
    assert found.unidentified == 3
    assert {case.case_id: case.site for case in found.cases} == {"b/kept": "ward", "a/kept": "a"}
    assert {case.patient for case in found.identified} == {"a/p", "b/p"}
    assert (found.tables, found.columns) == ({"b": "b", "a": "a"}, ("id", "b", "a"))
