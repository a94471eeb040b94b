from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold

from medmtl.data.case import Case
from medmtl.data.split import Balance, Fold, Splits, from_column, make_splits
from medmtl.data.split_file import from_file
from medmtl.errors import ArtefactError, CohortError

NONE: dict[str, frozenset[str]] = {}


def make_case(case_id: str, patient: str | None = None, row: int = 2, split: str | None = None) -> Case:
    return Case(case_id, patient or case_id, None, row, {}, split=split)


def make_cohort(count: int, per_patient: int = 1) -> list[Case]:
    return [make_case(f"c{i:03d}", f"p{i // per_patient:03d}", row=i + 2) for i in range(count)]


def multi_labels(cases: Sequence[Case], seed: int = 0) -> dict[str, frozenset[str]]:
    """Labels of very different frequency, some of them missing, as in a real cohort."""
    rng = random.Random(seed)
    rates = {"lesion:present": 0.9, "grade=low": 0.5, "grade=high": 0.15, "site=A": 0.3, "site=B": 0.08}
    return {case.case_id: frozenset(name for name, rate in rates.items() if rng.random() < rate) for case in cases}


def split_columns(parts: Mapping[str, str]) -> list[Case]:
    return [make_case(case_id, row=row, split=part) for row, (case_id, part) in enumerate(parts.items(), start=2)]


def refused(error: pytest.ExceptionInfo[CohortError]) -> list[str]:
    return [finding.code for finding in error.value.findings]


def write_splits(folder: Path, text: str) -> Path:
    path = folder / "splits_final.json"
    path.write_text(text)
    return path


def largest_spread(folds: Sequence[Sequence[str]], labels: Mapping[str, frozenset[str]]) -> int:
    """Over all labels: the most cases in one fold less the fewest in another."""
    counts = [Counter(name for case_id in fold for name in labels[case_id]) for fold in folds]
    return max(max(c[name] for c in counts) - min(c[name] for c in counts) for name in set().union(*labels.values()))


def assert_sound(splits: Splits, cases: Sequence[Case]) -> None:
    patient = {case.case_id: case.patient for case in cases}
    for fold in splits.folds:
        assert sorted((*fold.train, *fold.val, *splits.test)) == sorted(patient)
        parts = [{patient[case_id] for case_id in ids} for ids in (fold.train, fold.val, splits.test)]
        assert sum(map(len, parts)) == len(set().union(*parts))
    validated = [case_id for fold in splits.folds for case_id in fold.val]
    assert sorted((*validated, *splits.test)) == sorted(patient)


class TestMakeSplits:
    @pytest.mark.covers("B021", "P15")
    @pytest.mark.parametrize("folds", [2, 3, 5])
    @pytest.mark.parametrize("test", [0.0, 0.2])
    @pytest.mark.parametrize("per_patient", [1, 3])
    def test_every_patient_is_in_one_part_and_validated_once(self, folds: int, test: float, per_patient: int) -> None:
        cases = make_cohort(60, per_patient)
        assert_sound(make_splits(cases, multi_labels(cases), folds=folds, seed=1, test=test), cases)

    @pytest.mark.parametrize(("patients", "folds", "test", "sizes"), [
        (12, 5, 0.0, [2, 2, 2, 3, 3]),
        (20, 3, 0.25, [5, 5, 5]),
        (7, 2, 0.01, [3, 3]),
        (5, 5, 0.0, [1, 1, 1, 1, 1]),
    ])  # fmt: skip
    def test_sizes_are_exact_in_patients(self, patients: int, folds: int, test: float, sizes: list[int]) -> None:
        cases = make_cohort(2 * patients, per_patient=2)
        for seed in range(5):
            splits = make_splits(cases, multi_labels(cases, seed), folds=folds, seed=seed, test=test)
            assert sorted(len(fold.val) // 2 for fold in splits.folds) == sizes
            assert len(splits.test) // 2 == patients - sum(sizes)

    def test_a_single_label_is_divided_as_evenly_as_it_can_be(self) -> None:
        cases = make_cohort(50)
        for positives in range(1, 50):
            labels = {case.case_id: frozenset({f"sick={i < positives}"}) for i, case in enumerate(cases)}
            splits = make_splits(cases, labels, folds=5, seed=0, test=0.0)
            counts = [sum("sick=True" in labels[case_id] for case_id in fold.val) for fold in splits.folds]
            assert max(counts) - min(counts) <= 1 and sum(counts) == positives

    def test_the_rarest_label_is_dealt_first(self) -> None:
        # By hand: only f lacks s, so f is dealt first. Then r: a and b part, because each fold wants one. Of the three
        # others, one goes to the fold that holds f and two to the other.
        carried = {"a": {"r", "s"}, "b": {"r", "s"}, "c": {"s"}, "d": {"s"}, "e": {"s"}, "f": set[str]()}
        labels = {case_id: frozenset(names) for case_id, names in carried.items()}
        for seed in range(20):
            splits = make_splits([make_case(name) for name in "abcdef"], labels, folds=2, seed=seed, test=0.0)
            assert sorted(len({"a", "b"} & set(fold.val)) for fold in splits.folds) == [1, 1]
            assert sorted(len({"c", "d", "e"} & set(fold.val)) for fold in splits.folds) == [1, 2]
            assert [len({"f", "c", "d", "e"} & set(fold.val)) for fold in splits.folds] == [2, 2]

    def test_every_label_is_spread_where_random_folds_are_not(self) -> None:
        ours, unstratified = [], []
        for seed in range(10):
            cases = make_cohort(100)
            labels = multi_labels(cases, seed)
            folds = [fold.val for fold in make_splits(cases, labels, folds=5, seed=seed, test=0.0).folds]
            ours.append(largest_spread(folds, labels))
            ids = np.array(sorted(labels))
            unstratified.append(
                largest_spread(
                    [list(ids[val]) for _, val in KFold(5, shuffle=True, random_state=seed).split(ids)], labels
                )
            )
        assert max(ours) <= 2 < min(unstratified)

    def test_the_test_part_is_stratified_too(self) -> None:
        cases = make_cohort(40)
        labels = {case.case_id: frozenset({f"site={'A' if i < 10 else 'B'}"}) for i, case in enumerate(cases)}
        splits = make_splits(cases, labels, folds=2, seed=0, test=0.2)
        assert Counter(name for case_id in splits.test for name in labels[case_id]) == {"site=A": 2, "site=B": 6}

    def test_a_patient_carries_the_labels_of_all_its_cases(self) -> None:
        cases = [make_case(f"{patient}{visit}", patient) for patient in "abcd" for visit in "12"]
        labels = {"a1": frozenset({"rare"}), "b2": frozenset({"rare"})}
        for seed in range(20):
            splits = make_splits(cases, labels, folds=2, seed=seed, test=0.0)
            assert sorted(len({"a1", "b2"} & set(fold.val)) for fold in splits.folds) == [1, 1]

    def test_it_depends_on_the_seed_and_not_on_the_order_of_rows(self) -> None:
        cases = make_cohort(60, per_patient=2)
        labels = multi_labels(cases)
        first = make_splits(cases, labels, folds=5, seed=7, test=0.2)
        for order in range(5):
            mixed = random.Random(order).sample(cases, len(cases))
            assert make_splits(mixed, labels, folds=5, seed=7, test=0.2) == first
        assert len({make_splits(cases, labels, folds=5, seed=seed, test=0.2).test for seed in range(10)}) > 5

    def test_the_test_part_does_not_depend_on_the_number_of_folds(self) -> None:
        cases = make_cohort(60)
        parts = {make_splits(cases, multi_labels(cases), folds=k, seed=3, test=0.3).test for k in (2, 3, 5)}
        assert len(parts) == 1

    def test_balance_counts_cases_patients_and_labels(self) -> None:
        cases = make_cohort(30, per_patient=2)
        labels = multi_labels(cases)
        splits = make_splits(cases, labels, folds=3, seed=0, test=0.2)
        assert [(row.fold, row.part) for row in splits.balance] == [
            (0, "train"), (0, "val"), (1, "train"), (1, "val"), (2, "train"), (2, "val"), (None, "test"),
        ]  # fmt: skip
        names = set().union(*labels.values())
        for row in splits.balance:
            ids = splits.test if row.fold is None else getattr(splits.folds[row.fold], row.part)
            assert row.cases == len(ids) == 2 * row.patients
            assert row.labels == {name: sum(name in labels[case_id] for case_id in ids) for name in names}

    @pytest.mark.covers("B024")
    @pytest.mark.parametrize(("patients", "folds", "test"), [
        (4, 5, 0.0), (6, 5, 0.4), (0, 2, 0.0), (3, 2, 0.9), (9, 1, 0.0),
    ])  # fmt: skip
    def test_an_empty_part_is_refused(self, patients: int, folds: int, test: float) -> None:
        cases = make_cohort(2 * patients, per_patient=2)
        with pytest.raises(CohortError, match="B024") as error:
            make_splits(cases, NONE, folds=folds, seed=0, test=test)
        assert refused(error) == ["B024"]


class TestFromColumn:
    def test_the_column_is_taken_as_it_is(self) -> None:
        cases = split_columns({"d": "train", "a": "train", "b": "val", "c": "test"})
        labels = {"a": frozenset({"site=A"})}
        assert from_column(cases, labels) == Splits(
            (Fold(("a", "d"), ("b",)),),
            ("c",),
            (
                Balance(0, "train", 2, 2, {"site=A": 1}),
                Balance(0, "val", 1, 1, {"site=A": 0}),
                Balance(None, "test", 1, 1, {"site=A": 0}),
            ),
        )

    @pytest.mark.covers("B023")
    def test_every_other_value_is_refused_with_its_row(self) -> None:
        cases = [*split_columns({"a": "train", "b": "Train ", "c": "val", "d": ""}), make_case("e", row=9)]
        with pytest.raises(CohortError) as error:
            from_column(cases)
        assert [(f.code, f.case, f.row, f.found) for f in error.value.findings] == [
            ("B023", "b", 3, "Train "), ("B023", "d", 5, "an empty cell"), ("B023", "e", 9, "an empty cell"),
        ]  # fmt: skip

    @pytest.mark.covers("B021", "B023")
    def test_a_wrong_value_hides_no_patient_in_two_parts_and_makes_no_part_empty(self) -> None:
        cases = [make_case("a", "p", 2, "train"), make_case("b", "p", 3, "test"), make_case("c", row=4, split="Val ")]
        with pytest.raises(CohortError) as error:
            from_column(cases, column="part")
        assert [(f.code, f.row, f.column, f.key) for f in error.value.findings] == [
            ("B023", 4, "part", "split.column"), ("B021", 3, "part", "split.column"),
        ]  # fmt: skip
        assert error.value.findings[0].fix == "write val"

    @pytest.mark.covers("B024")
    @pytest.mark.parametrize("empty", ["train", "val"])
    def test_an_empty_part_is_refused(self, empty: str) -> None:
        other = "val" if empty == "train" else "train"
        with pytest.raises(CohortError, match=f"no {empty} case") as error:
            from_column(split_columns({"a": other, "b": "test"}))
        assert refused(error) == ["B024"]

    @pytest.mark.covers("B021")
    @pytest.mark.parametrize("parts", [("train", "val"), ("train", "test"), ("test", "val")])
    def test_a_patient_in_two_parts_is_refused_on_the_later_row(self, parts: tuple[str, str]) -> None:
        cases = [
            *split_columns({"x": "train", "y": "val"}),
            make_case("later", "person", row=9, split=parts[1]),
            make_case("earlier", "person", row=8, split=parts[0]),
        ]
        with pytest.raises(CohortError) as error:
            from_column(cases)
        assert [(f.code, f.case, f.row) for f in error.value.findings] == [("B021", "later", 9)]
        assert "(row 8)" in str(error.value)

    @pytest.mark.covers("B021")
    def test_all_such_patients_are_listed(self) -> None:
        cases = [make_case(f"{p}{part}", p, split=part) for p in "abc" for part in ("train", "val")]
        with pytest.raises(CohortError, match="and 2 more") as error:
            from_column(cases)
        assert refused(error) == ["B021"] * 3


class TestFromFile:
    def test_folds_are_taken_and_unnamed_cases_are_the_test_part(self, tmp_path: Path) -> None:
        folds = [{"train": ["c", "b"], "val": ["a"]}, {"train": ["a"], "val": ["b", "c"]}]
        splits = from_file(write_splits(tmp_path, json.dumps(folds)), [make_case(name) for name in "dcba"], NONE)
        assert splits.folds == (Fold(("b", "c"), ("a",)), Fold(("a",), ("b", "c")))
        assert splits.test == ("d",)
        assert [row.cases for row in splits.balance] == [2, 1, 1, 2, 1]

    def test_the_splits_of_a_run_are_taken_with_their_test_part(self, tmp_path: Path) -> None:
        cases = [make_case(name) for name in "abcd"]
        own = from_file(write_splits(tmp_path, '[{"train": ["c", "b"], "val": ["a"]}]'), cases, NONE)
        stored = write_splits(tmp_path, json.dumps(own.to_json()))
        assert from_file(stored, cases, NONE) == own
        assert own.test == ("d",)

    @pytest.mark.covers("B023")
    def test_unknown_ids_are_listed(self, tmp_path: Path) -> None:
        path = write_splits(tmp_path, '[{"train": ["a", "ghost"], "val": ["b", "phantom"]}]')
        with pytest.raises(CohortError) as error:
            from_file(path, [make_case("a"), make_case("b")])
        assert [(f.code, f.found, f.file) for f in error.value.findings] == [
            ("B023", "ghost", "splits_final.json"), ("B023", "phantom", "splits_final.json"),
        ]  # fmt: skip

    @pytest.mark.covers("B017", "B021", "B024")
    @pytest.mark.parametrize(("folds", "codes"), [
        ([{"train": ["a1"], "val": ["a2", "b"]}], ["B021"]),
        ([{"train": ["a1"], "val": ["b"]}], ["B021"]),
        ([{"train": ["a1", "a2"], "val": ["b"]}, {"train": ["a1", "b"], "val": ["a2"]}], ["B021"]),
        ([{"train": ["a1", "a2", "b"], "val": ["b"]}], ["B021"]),
        ([{"train": ["a1", "a2", "a1"], "val": ["b"]}], ["B017"]),
        ([{"train": ["a1", "a2"], "val": ["b"]}, {"train": ["a1", "a2"], "val": ["b"]}], ["B017"]),
        ([{"train": ["a1", "a2", "b"], "val": []}], ["B024"]),
        ([], ["B024"]),
    ])  # fmt: skip
    def test_faulty_folds_are_refused(self, tmp_path: Path, folds: list[Any], codes: list[str]) -> None:
        cases = [make_case("a1", "a", row=2), make_case("a2", "a", row=3), make_case("b", row=4)]
        with pytest.raises(CohortError) as error:
            from_file(write_splits(tmp_path, json.dumps(folds)), cases)
        assert refused(error) == codes

    @pytest.mark.parametrize(("text", "code", "found"), [
        *(pytest.param(text, "B027", found, marks=pytest.mark.covers("B027")) for text, found in (
            ("", "line 1 column 1"), ("[", "line 1 column 2"), ("{}", "at /:"), ("null", "at /:"), ('["a"]', "at /0:"),
            ('[{"train": ["a"]}]', "at /0/val:"), ('[{"train": ["a"], "val": [1]}]', "at /0/val/0:"),
            ('[{"train": "a", "val": ["b"]}]', "at /0/train:"),
            ('[{"train": ["a"], "val": ["b"], "test": []}]', "at /0/test:"),
            ('{"folds": [{"train": ["a"], "val": ["b"]}], "test": [1]}', "at /0:"),
        )),
        *(pytest.param(text, "B028", found, marks=pytest.mark.covers("B028")) for text, found in (
            ('[{"train": ["a"], "train": ["b"], "val": ["c"]}]', "'train' stands twice"),
            ('[{"train": ["a"], "val": [NaN]}]', "NaN"), ('[{"train": ["a"], "val": [1e999]}]', "1e999"),
        )),
        pytest.param("[" * 5000, "B029", "64 levels", marks=pytest.mark.covers("B029")),
        pytest.param("[" * 65 + "]" * 65, "B029", "64 levels", marks=pytest.mark.covers("B029")),
    ])  # fmt: skip
    def test_other_json_is_refused(self, tmp_path: Path, text: str, code: str, found: str) -> None:
        path = write_splits(tmp_path, text)
        with pytest.raises(CohortError, match=code) as error:
            from_file(path, [make_case("a"), make_case("b")])
        (finding,) = error.value.findings
        assert (finding.code, finding.severity, finding.key) == (code, "reject", "split.file")
        assert finding.file == "splits_final.json"
        assert found in str(finding.found) or str(finding.found).endswith("...")
        assert path.read_text() == text

    @pytest.mark.covers("B029")
    def test_a_file_over_the_limit_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_splits(tmp_path, '[{"train": ["a"], "val": ["b"]}]')
        monkeypatch.setattr("medmtl.data.split_file.MAX_JSON_BYTES", path.stat().st_size - 1)
        with pytest.raises(CohortError, match="B029"):
            from_file(path, [make_case("a"), make_case("b")])

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CohortError, match="no regular file"):
            from_file(tmp_path / "pipe", [make_case("a"), make_case("b")])

    def test_a_patient_in_two_folds_is_one_finding(self, tmp_path: Path) -> None:
        ids = ["a1", "a2", "b", "c", "d", "e"]
        validated = (["a1", "b"], ["a2", "c"], ["d", "e"])
        folds = [{"train": [i for i in ids if i not in val], "val": val} for val in validated]
        cases = [make_case(name, name[0], row=row) for row, name in enumerate(ids, start=2)]
        with pytest.raises(CohortError) as error:
            from_file(write_splits(tmp_path, json.dumps(folds)), cases)
        assert [(f.code, f.case, f.row) for f in error.value.findings] == [("B021", "a2", 3)]

    @pytest.mark.covers("B001")
    def test_a_file_that_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent.json", tmp_path):
            with pytest.raises(CohortError) as error:
                from_file(path, [make_case("a"), make_case("b")])
            assert refused(error) == ["B001"]


class TestJson:
    def test_a_round_trip_changes_nothing(self) -> None:
        cases = make_cohort(20)
        splits = make_splits(cases, multi_labels(cases), folds=3, seed=0, test=0.2)
        stored = json.loads(json.dumps(splits.to_json()))
        assert list(stored) == ["folds", "test", "balance"]
        assert stored["folds"][0]["val"] == list(splits.folds[0].val)
        assert Splits.from_json(stored) == splits

    @pytest.mark.parametrize("change", [
        {"folds": []},
        {"folds": [{"train": ["a"], "val": []}]},
        {"folds": [{"train": ["a"], "val": ["a"]}]},
        {"folds": [{"train": ["a"], "val": ["b"]}], "test": ["b"]},
        {"folds": [{"train": ["a"], "val": ["b"], "tune": []}]},
        {"test": None},
        {"balance": [{"fold": 0}]},
        {"more": 1},
    ])  # fmt: skip
    def test_a_damaged_record_is_refused(self, change: dict[str, Any]) -> None:
        sound = {"folds": [{"train": ["a"], "val": ["b"]}], "test": [], "balance": []}
        assert Splits.from_json(sound).folds == (Fold(("a",), ("b",)),)
        with pytest.raises(ArtefactError, match=r"splits\.json was refused"):
            Splits.from_json(sound | change)
