"""Cells, what is learned of them, and what a head reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from sklearn.preprocessing import OneHotEncoder, RobustScaler

from medmtl.data.case import Case
from medmtl.data.covariates import (
    CategoryCovariate,
    Covariate,
    CovariateFault,
    NumberCovariate,
    Value,
    encode_case,
    feature_count,
    learn,
    parse,
)


def case(**cells: str | None) -> Case:
    return Case("c", "p", None, 2, {}, cells)


def ages(*cells: str | None) -> NumberCovariate:
    (found,) = learn({"age": "number"}, [case(age=cell) for cell in cells])
    assert isinstance(found, NumberCovariate)
    return found


def sexes(*cells: str | None) -> CategoryCovariate:
    (found,) = learn({"sex": "category"}, [case(sex=cell) for cell in cells])
    assert isinstance(found, CategoryCovariate)
    return found


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        pytest.param("61,5", "B006", marks=pytest.mark.covers("B006")),
        ("1 234", "B006"),
        pytest.param("n/a", "B116", marks=pytest.mark.covers("B116")),
        ("?", "B116"),
        pytest.param("61;62", "B118", marks=pytest.mark.covers("B118")),
        pytest.param("old", "B119", marks=pytest.mark.covers("B119")),
        ("nan", "B119"),
        ("inf", "B119"),
        ("1e31", "B119"),
        ("0x10", "B119"),
        ("", "B119"),
    ],
)
def test_a_cell_that_is_no_number_is_refused_by_its_rule(cell: str, code: str) -> None:
    with pytest.raises(CovariateFault, match="covariate age: found") as raised:
        parse("age", "number", cell)
    assert (raised.value.code, raised.value.column, raised.value.found) == (code, "age", cell)


@pytest.mark.parametrize(("cell", "value"), [("61.5", 61.5), ("-3", -3.0), ("1e-3", 1e-3), (None, None)])
def test_a_number_is_read(cell: str | None, value: Value) -> None:
    assert parse("age", "number", cell) == value


@pytest.mark.parametrize("cell", ["F", "7", "none", " f", None])
def test_any_text_is_a_level(cell: str | None) -> None:
    assert parse("sex", "category", cell) == cell


def test_a_case_without_the_cell_is_refused() -> None:
    with pytest.raises(CovariateFault, match="covariate age: found 'nothing'") as raised:
        encode_case([ages("1", "2")], case(sex="F"))
    assert raised.value.code == "B162"


def test_numbers_are_standardised_as_by_scikit_learn() -> None:
    values = np.random.default_rng(0).lognormal(1, 0.5, 30)
    learned = ages(*map(repr, values.tolist()))
    expected = RobustScaler().fit(values[:, None]).transform(values[:, None])[:, 0]
    found = [encode_case([learned], case(age=repr(value))).tolist() for value in values.tolist()]
    np.testing.assert_allclose([z for z, _ in found], expected, rtol=1e-6, atol=1e-6)
    assert {indicator for _, indicator in found} == {0.0}


def test_categories_are_one_hot_as_by_scikit_learn() -> None:
    cells = ["F", "M", "M", "x", "x", "F", "once"]
    learned = sexes(*cells)
    reference = OneHotEncoder(min_frequency=2, handle_unknown="infrequent_if_exist", sparse_output=False)
    reference.fit(np.array(cells)[:, None])
    for cell in (*cells, "never"):
        assert learned.features(cell) == reference.transform([[cell]])[0].tolist()


def test_a_missing_value_is_0_and_an_indicator() -> None:
    covariates = learn({"age": "number", "sex": "category"}, [case(age=a, sex="MF"[a < "3"]) for a in "1234"])
    assert encode_case(covariates, case(age=None, sex=None)).tolist() == [0.0, 1.0, 0.0, 0.0, 1.0]
    assert encode_case(covariates, case(age="2.5", sex="M")).tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert feature_count(covariates) == 5


def test_no_covariates_are_no_features() -> None:
    found = encode_case((), case())
    assert (found.shape, found.dtype) == (torch.Size([0]), torch.float32)


def test_missing_values_do_not_enter_the_statistics() -> None:
    assert ages("1", "2", None, "4", None) == NumberCovariate("age", 2.0, 1.5, 1.0, 4.0, 2)


def test_where_most_values_are_equal_the_deviation_is_the_spread() -> None:
    assert ages("0", "0", "0", "0", "1").spread == pytest.approx(0.4)


@pytest.mark.parametrize("cells", [("0.1",) * 7, (None, None), ("5", None)])
def test_a_covariate_that_does_not_vary_says_nothing(cells: Sequence[str | None]) -> None:
    assert ages(*cells).features(80.0) == [0.0, 0.0]


def test_a_value_far_outside_counts_as_ten_spreads_away() -> None:
    learned = ages("40", "50", "60", "70")
    assert [learned.features(value)[0] for value in (1e30, -1e30)] == [10.0, -10.0]


def test_levels_do_not_depend_on_the_order_of_rows() -> None:
    assert sexes("b", "a", "b", "a", "c", "c") == sexes("c", "a", "a", "b", "c", "b")


def test_a_level_of_one_case_is_not_learned() -> None:
    assert sexes("F", "F", "somebody", None) == CategoryCovariate("sex", ("F",), 2)


@pytest.mark.parametrize(
    ("value", "complete", "incomplete"),
    [(40.0, True, True), (75.9, True, True), (77.1, False, False), (32.9, False, False), (None, False, True)],
)
def test_what_training_held_the_like_of(value: Value, complete: bool, incomplete: bool) -> None:
    assert ages("40", "70").knows(value) is complete
    assert ages("40", "70", None).knows(value) is incomplete


def test_known_levels() -> None:
    assert [sexes("F", "F").knows(value) for value in ("F", "M", None)] == [True, False, False]
    assert sexes("F", "F", None).knows(None)


def test_what_was_learned_survives_json_to_the_last_bit() -> None:
    rows: list[Mapping[str, str | None]] = [{"age": f"{n / 7!r}", "sex": "MF"[n % 2]} for n in range(9)]
    learned = learn({"age": "number", "sex": "category"}, [case(**row) for row in rows])
    stored = json.loads(json.dumps([asdict(one) for one in learned]))
    assert TypeAdapter(tuple[Covariate, ...]).validate_python(stored) == learned
