"""Classification: cells, prior, weights, and metrics against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from medmtl.tasks.base import CaseTask, CellError, ScoredCase
from medmtl.tasks.classification import Classification, ClassificationOptions, ClassificationResult
from tests.tasks.contract import SPEC, CaseTaskContract, case, features


class TestTwoClasses(CaseTaskContract):
    options: ClassVar[Mapping[str, Any]] = {"kind": "classification", "column": "grade", "classes": ["low", "high"]}
    truths: ClassVar[Sequence[Any]] = ["low", "high", "low", "high", "low"]
    primary = "auc"
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"classes": ["low"]}, "at least 2"),
        ({"classes": ["low", "low"]}, "differ"),
        ({"classes": ["low", ""]}, "empty"),
        ({"classes": [0, 1]}, "valid string"),
        ({"class_weights": "sqrt"}, "balanced"),
    )

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(task.encode(truth), len(self.options["classes"])).float()


class TestFourWeightedClasses(TestTwoClasses):
    options: ClassVar[Mapping[str, Any]] = {
        **TestTwoClasses.options,
        "classes": ["a", "b", "c", "d"],
        "class_weights": "balanced",
    }
    truths: ClassVar[Sequence[Any]] = ["a", "b", "c", "d", "a", "a"]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()


def build(classes: Sequence[str] = ("low", "high"), truths: Sequence[str] = (), **options: Any) -> Classification:
    made = ClassificationOptions(kind="classification", column="grade", classes=tuple(classes), **options)
    task = Classification("grade", made)
    return Classification("grade", made, task.fit(truths)) if truths else task


def scored(task: Classification, truths: Sequence[str], probability_NK: Any, folds: Sequence[int]) -> list[ScoredCase]:
    return [
        ScoredCase(f"c{i}", f"p{i}", None, fold, truth, task.result(torch.tensor(row), {}))
        for i, (truth, row, fold) in enumerate(zip(truths, probability_NK.tolist(), folds, strict=True))
    ]


@pytest.mark.parametrize("cell", ["High", "high ", "1", "hgih"])
def test_any_other_text_is_refused_with_the_nearest_class(cell: str) -> None:
    with pytest.raises(CellError) as caught:
        build().read(case(cells={"grade": cell}))
    assert (caught.value.code, caught.value.column, caught.value.found) == ("B112", "grade", cell)
    assert ("'high'" in caught.value.fix) == (cell != "1")


def test_a_class_without_a_case_is_refused_by_name() -> None:
    with pytest.raises(CellError, match="no case of high") as caught:
        build().fit(["low", "low"])
    assert caught.value.code == "B115"


def test_loss_scale_is_the_entropy_of_the_prior_or_of_the_uniform_under_balance() -> None:
    truths = ["low"] * 9 + ["high"]
    assert build(truths=truths).loss_scale == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    balanced = build(truths=truths, class_weights="balanced")
    assert balanced.loss_scale == pytest.approx(math.log(2))
    assert balanced.fitted["weights"] == pytest.approx([10 / 18, 5.0])


def test_the_untrained_head_answers_the_prior() -> None:
    task = build(truths=["low"] * 3 + ["high"])
    probability = task.activate(task.head(SPEC).eval()(features(5)))
    torch.testing.assert_close(probability, torch.tensor([[0.75, 0.25]]).expand(5, 2), atol=0.01, rtol=0)


def test_strata_are_the_classes() -> None:
    assert build().strata({"c1": "low", "c2": "high"}) == {"c1": "low", "c2": "high"}


def test_result_and_cells_in_the_declared_order() -> None:
    result = build().result(torch.tensor([0.25, 0.75]), {})
    assert result == ClassificationResult(label="high", probabilities={"low": 0.25, "high": 0.75})
    assert list(result.cells("grade").items()) == [("grade", "high"), ("grade_p_low", 0.25), ("grade_p_high", 0.75)]


def test_two_class_metrics_are_sklearns() -> None:
    generator = np.random.default_rng(0)
    truths = np.array(["low", "high"])[generator.integers(2, size=60)]
    score = np.clip(generator.normal((truths == "high") * 0.3 + 0.35, 0.2), 0.01, 0.99)
    task = build(truths=truths.tolist())
    cases = scored(task, truths.tolist(), np.stack([1 - score, score], axis=1), [0] * 60)
    metrics = task.metrics(cases)
    positive, called = truths == "high", score > 0.5
    assert metrics["auc"].value == pytest.approx(roc_auc_score(positive, score))
    assert metrics["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(positive, called))
    assert metrics["f1_macro"].value == pytest.approx(f1_score(positive, called, average="macro"))
    assert metrics["sensitivity"].value == pytest.approx(called[positive].mean())
    assert metrics["specificity"].value == pytest.approx((~called[~positive]).mean())
    assert metrics["sensitivity"].extra["threshold"] == 0.5
    assert metrics["brier"].value == pytest.approx(np.mean((score - positive) ** 2))
    assert metrics["auc"].ci95 is not None


def test_several_classes_have_a_macro_auc_and_no_sensitivity() -> None:
    generator = np.random.default_rng(1)
    truths = np.array(["a", "b", "c"])[generator.integers(3, size=60)]
    probability = generator.dirichlet([1, 1, 1], size=60)
    task = build(("a", "b", "c"), truths.tolist())
    metrics = task.metrics(scored(task, truths.tolist(), probability, [0] * 60))
    assert metrics["auc"].value == pytest.approx(roc_auc_score(truths, probability, multi_class="ovr"), rel=1e-6)
    assert metrics["average_precision"].extra["n_classes"] == 3
    assert not {"sensitivity", "specificity"} & metrics.keys()
    assert len(task.figures(scored(task, truths.tolist(), probability, [0] * 60))[0].curves) == 3  # type: ignore[union-attr]


def test_ranking_and_roc_stay_within_a_fold() -> None:
    # each fold ranks perfectly, but fold 1 scores everybody higher than fold 0 does
    truths = ["low", "high", "low", "high"]
    score = np.array([0.1, 0.2, 0.8, 0.9])
    task = build(truths=truths)
    cases = scored(task, truths, np.stack([1 - score, score], axis=1), [0, 0, 1, 1])
    assert task.metrics(cases)["auc"].value == 1.0
    (figure,) = task.figures(cases)
    assert [name for name, *_ in figure.curves] == ["high, fold 0", "high, fold 1"]  # type: ignore[union-attr]


@pytest.mark.covers("F46")
def test_a_single_class_has_no_auc_but_says_why() -> None:
    task = build(truths=["low", "high"])
    metrics = task.metrics(scored(task, ["low", "low"], np.array([[0.4, 0.6], [0.7, 0.3]]), [0, 0]))
    assert metrics["auc"].value is None
    assert metrics["auc"].why
    assert metrics["sensitivity"].value is None
    assert metrics["specificity"].value == 0.5
