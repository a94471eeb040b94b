"""Ordinal: cells, chain, the median grade, and metrics against scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, roc_auc_score

from medmtl.metrics.figures import CalibrationFigure
from medmtl.tasks.base import CaseTask, CellError, ScoredCase
from medmtl.tasks.ordinal import Ordinal, OrdinalOptions
from tests.tasks.contract import SPEC, CaseTaskContract, case, features

GRADES = ("1", "2", "3", "4")


class TestOrdinal(CaseTaskContract):
    options: ClassVar[Mapping[str, Any]] = {"kind": "ordinal", "column": "grade", "grades": list(GRADES)}
    truths: ClassVar[Sequence[Any]] = ["1", "3", "2", "4", "2", "1"]
    primary = "kappa_quadratic"
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"grades": ["low", "high"]}, "at least 3"),
        ({"grades": ["a", "b", "a"]}, "grades must differ"),
        ({"grades": [1, 2, 3]}, "valid string"),
    )

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(task.encode(truth), len(GRADES)).float()


def build(truths: Sequence[str] = GRADES) -> Ordinal:
    options = OrdinalOptions(kind="ordinal", column="grade", grades=GRADES)
    return Ordinal("grade", options, Ordinal("grade", options).fit(truths))


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        pytest.param(cell, code, marks=pytest.mark.covers(code))
        for cell, code in (("5", "B112"), ("2.0", "B113"), ("n/a", "B116"), ("1;2", "B118"))
    ],
)
def test_what_is_no_grade_is_refused(cell: str, code: str) -> None:
    with pytest.raises(CellError) as caught:
        build().read(case(cells={"grade": cell}))
    assert (caught.value.code, caught.value.column, caught.value.found) == (code, "grade", cell)


@pytest.mark.covers("B115")
def test_a_grade_without_a_case_is_refused_by_name() -> None:
    with pytest.raises(CellError, match="no case of 4") as caught:
        build(["1", "2", "3"])
    assert caught.value.code == "B115"


def test_the_untrained_head_answers_the_shares() -> None:
    task = build(["1", "1", "2", "3", "4"])
    probability = task.activate(task.head(SPEC).eval()(features(3)))
    torch.testing.assert_close(probability, torch.tensor([[0.4, 0.2, 0.2, 0.2]]).expand(3, 4), atol=0.01, rtol=0)


def test_the_median_is_called_not_the_likeliest() -> None:
    result = build().result(torch.tensor([0.4, 0.15, 0.15, 0.3]), {})
    assert result.label == "2"
    assert list(result.cells("grade")) == ["grade", "grade_p_1", "grade_p_2", "grade_p_3", "grade_p_4"]
    for index, grade in enumerate(GRADES):
        assert build().result(torch.eye(4)[index], {}).label == grade


def test_another_order_is_another_target() -> None:
    options = OrdinalOptions(kind="ordinal", column="grade", grades=GRADES[::-1])
    with pytest.raises(ValueError, match="the model's are 1, 2, 3, 4"):
        build().same_target(Ordinal("grade", options))


def test_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    grade = random.integers(4, size=80)
    probability = random.dirichlet(np.ones(4), size=80) * 0.6 + 0.4 * np.eye(4)[grade]
    task = build()
    cases = [
        ScoredCase(f"c{i}", f"p{i}", None, 0, GRADES[k], task.result(torch.tensor(row), {}))
        for i, (k, row) in enumerate(zip(grade.tolist(), probability.tolist(), strict=True))
    ]
    called = np.array([GRADES.index(str(entry.result.cells("g")["g"])) for entry in cases])
    metrics = task.metrics(cases)
    assert metrics["kappa_quadratic"].value == pytest.approx(cohen_kappa_score(grade, called, weights="quadratic"))
    assert metrics["mae"].value == pytest.approx(mean_absolute_error(grade, called))
    assert metrics["mae"].unit == "grades"
    areas = [roc_auc_score(grade > k, 1 - probability.cumsum(axis=1)[:, k]) for k in range(3)]
    assert metrics["auc"].value == pytest.approx(np.mean(areas), rel=1e-6)
    assert metrics["auc"].ci95 is not None
    errors = [task.result_scores(entry.result, entry.truth)["absolute_error"] for entry in cases]
    assert errors == np.abs(grade - called).tolist()
    assert [len(figure.curves) for figure in task.figures(cases)] == [3, 3]  # type: ignore[union-attr]


def test_small_probabilities_of_high_grades_keep_their_order_and_their_sign() -> None:
    task = build()
    grade_N = np.repeat([0, 3], 20)
    # of what an fp32 chain answers where the lowest grade is sure
    top_N = np.geomspace(1e-12, 1e-9, 40)
    rows = [torch.tensor([1.0, top / 4, top / 2, top], dtype=torch.float32) for top in top_N]
    cases = [
        ScoredCase(f"c{i}", f"p{i}", None, 0, GRADES[k], task.result(row, {}))
        for i, (k, row) in enumerate(zip(grade_N.tolist(), rows, strict=True))
    ]
    assert task.metrics(cases)["auc"].value == 1.0
    calibration = task.figures(cases)[1]
    assert isinstance(calibration, CalibrationFigure)
    assert all(point.predicted > 0 for _, points in calibration.curves for point in points)
