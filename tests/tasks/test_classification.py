"""Classification: cells, prior, weights, and metrics against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from medmtl.losses.cross_entropy import cross_entropy_loss
from medmtl.losses.focal import focal_loss
from medmtl.metrics.calibration import fit_calibrator, youden_threshold
from medmtl.metrics.figures import CalibrationFigure
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
        ({"loss": "hinge"}, "cross_entropy"),
        ({"gamma": 2.0}, "gamma belongs to loss: focal"),
        ({"loss": "focal", "gamma": -0.1}, "greater than or equal to 0"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"label_smoothing": -0.1}, "greater than or equal to 0"),
        ({"loss": "focal", "label_smoothing": 0.1}, "label_smoothing belongs to loss: cross_entropy"),
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


class TestFocal(TestFourWeightedClasses):
    options: ClassVar[Mapping[str, Any]] = {**TestFourWeightedClasses.options, "loss": "focal", "gamma": 1.5}


class TestSmoothed(TestFourWeightedClasses):
    options: ClassVar[Mapping[str, Any]] = {**TestFourWeightedClasses.options, "label_smoothing": 0.1}


def build(classes: Sequence[str] = ("low", "high"), truths: Sequence[str] = (), **options: Any) -> Classification:
    made = ClassificationOptions(kind="classification", column="grade", classes=tuple(classes), **options)
    task = Classification("grade", made)
    return Classification("grade", made, task.fit(truths)) if truths else task


def scored(task: Classification, truths: Sequence[str], probability_NK: Any, folds: Sequence[int]) -> list[ScoredCase]:
    return [
        ScoredCase(f"c{i}", f"p{i}", None, fold, truth, task.result(torch.tensor(row), {}))
        for i, (truth, row, fold) in enumerate(zip(truths, probability_NK.tolist(), folds, strict=True))
    ]


@pytest.mark.covers("B112")
@pytest.mark.parametrize("cell", ["High", "high ", "1", "hgih"])
def test_any_other_text_is_refused_with_the_nearest_class(cell: str) -> None:
    with pytest.raises(CellError) as caught:
        build().read(case(cells={"grade": cell}))
    assert (caught.value.code, caught.value.column, caught.value.found) == ("B112", "grade", cell)
    assert ("'high'" in caught.value.fix) == (cell != "1")


@pytest.mark.parametrize(
    ("classes", "cell", "code", "fix"),
    [
        *(
            pytest.param(["0", "1"], cell, "B113", "write '1' in every row", marks=pytest.mark.covers("B113"))
            for cell in ("1.0", "01", "+1", "1e0")
        ),
        *(
            pytest.param(["low", "high"], cell, "B116", "cohort.missing", marks=pytest.mark.covers("B116"))
            for cell in ("?", "-", "n/a")
        ),
        *(
            pytest.param(["low", "high"], cell, "B118", "one class", marks=pytest.mark.covers("B118"))
            for cell in ("low;high", "high | low", "low,high", "low high")
        ),
        pytest.param(["+", "-"], "?", "B116", "declare the class", marks=pytest.mark.covers("B116")),
        (["0", "1"], "1 ", "B112", "'1'"),
        (["low grade", "high grade"], "low", "B112", "declare the class"),
    ],
)
def test_what_a_cell_without_a_class_may_mean(classes: list[str], cell: str, code: str, fix: str) -> None:
    with pytest.raises(CellError) as caught:
        build(classes).read(case(cells={"grade": cell}))
    assert (caught.value.code, caught.value.found, caught.value.column) == (code, cell, "grade")
    assert fix in caught.value.fix


@pytest.mark.parametrize("name", ["-", "?", "n/a", "a;b", "1.0"])
def test_a_declared_class_is_read_whatever_it_looks_like(name: str) -> None:
    assert build([name, "b"]).read(case(cells={"grade": name})) == name


@pytest.mark.covers("B115")
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


def test_loss_scale_is_that_of_the_declared_loss() -> None:
    truths = ["low"] * 9 + ["high"]
    scales = {
        "plain": build(truths=truths).loss_scale,
        "smooth": build(truths=truths, label_smoothing=0.2).loss_scale,
        "focal": build(truths=truths, loss="focal").loss_scale,
        "gamma 0": build(truths=truths, loss="focal", gamma=0).loss_scale,
    }
    assert scales["gamma 0"] == pytest.approx(scales["plain"])
    # 0.8 of the labels as they are and 0.1 for either class: 0.82 and 0.18
    assert scales["smooth"] == pytest.approx(-(0.82 * math.log(0.82) + 0.18 * math.log(0.18)))
    assert scales["focal"] == pytest.approx(build(truths=truths, loss="focal", gamma=2).loss_scale)
    assert scales["focal"] < 0.5 * scales["plain"]


def test_the_loss_is_the_declared_one_with_the_fitted_weights() -> None:
    truths = ["low"] * 3 + ["high"]
    output, target = torch.tensor([[1.0, -0.5], [0.2, 0.4]]), torch.tensor([0, 1])
    weights = torch.tensor([4 / 6, 2.0])
    focal = build(truths=truths, class_weights="balanced", loss="focal")
    torch.testing.assert_close(focal.loss(output, target), focal_loss(output, target, 2.0, weights))
    smooth = build(truths=truths, class_weights="balanced", label_smoothing=0.3)
    torch.testing.assert_close(smooth.loss(output, target), cross_entropy_loss(output, target, weights, 0.3))


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


def pooled(seed: int = 0, n: int = 90) -> tuple[Classification, list[ScoredCase], np.ndarray, np.ndarray]:
    """Three folds, the models of which answer on scales of their own; some patients have two cases, in one fold."""
    random = np.random.default_rng(seed)
    fold = np.arange(n) % 3
    positive = random.random(n) < 0.4
    score = 1 / (1 + np.exp(-(1.5 * random.normal(size=n) + 2 * positive + 0.5 * fold - 2)))
    truths = np.where(positive, "high", "low").tolist()
    task = build(truths=truths)
    cases = scored(task, truths, np.stack([1 - score, score], axis=1), fold.tolist())
    cases = [replace(entry, patient=f"p{int(entry.case_id[1:]) // 6}-{entry.fold}") for entry in cases]
    return task, cases, positive, score


def test_threshold_and_calibrator_of_a_fold_are_those_of_the_other_folds() -> None:
    task, cases, positive, score = pooled()
    fold = np.array([entry.fold for entry in cases])
    found = task.out_of_fold(cases)
    assert [replace(entry, reference={}) for entry in found] == cases
    called, calibrated = np.zeros(90, dtype=bool), np.zeros((90, 2))
    thresholds = {}
    for number in range(3):
        other = fold != number
        threshold = youden_threshold(positive[other], score[other])
        calibrator = fit_calibrator(positive[other].astype(int), np.stack([1 - score, score], axis=1)[other])
        assert threshold is not None and calibrator is not None
        thresholds[str(number)] = threshold
        called[~other] = score[~other] >= threshold
        calibrated[~other] = calibrator.apply(np.stack([1 - score, score], axis=1)[~other])
    assert len(set(thresholds.values())) == 3
    metrics = task.metrics(found)
    for name, value in (("sensitivity", called[positive].mean()), ("specificity", (~called[~positive]).mean())):
        assert metrics[name].value == pytest.approx(value)
        assert metrics[name].extra["threshold_by_fold"] == pytest.approx(thresholds, abs=1e-6)
        assert "Youden" in metrics[name].extra["threshold_source"]
        assert "out-of-fold" in metrics[name].extra["threshold_source"]
        assert "threshold" not in metrics[name].extra
    raw = task.metrics(cases)
    assert metrics["brier"] == raw["brier"]
    assert metrics["brier_calibrated"].value == pytest.approx(np.mean((calibrated[:, 1] - positive) ** 2), abs=1e-6)
    assert "Platt" in metrics["brier_calibrated"].extra["calibrator"]
    assert metrics["brier_calibrated"].ci95 is not None
    # what does not depend on a threshold or a calibrator is as it was
    for name in ("auc", "average_precision", "balanced_accuracy", "f1_macro"):
        assert metrics[name] == raw[name]


def test_a_probability_at_the_threshold_is_called() -> None:
    task, truths = build(), ["high", "high", "low", "low"]
    made = scored(task, truths, np.array([[0.75, 0.25]] * 2 + [[0.875, 0.125]] * 2), [0, 0, 0, 0])
    metrics = task.metrics([replace(entry, reference={"threshold": 0.25}) for entry in made])
    assert (metrics["sensitivity"].value, metrics["specificity"].value) == (1.0, 1.0)


def test_what_is_scored_never_reaches_its_own_threshold() -> None:
    task, cases, _, _ = pooled()
    before = [entry.reference for entry in task.out_of_fold(cases)]
    turned = [
        replace(entry, truth="low" if entry.truth == "high" else "high") if entry.fold == 1 else entry
        for entry in cases
    ]
    after = [entry.reference for entry in task.out_of_fold(turned)]
    changed = {entry.fold for entry, old, new in zip(cases, before, after, strict=True) if old != new}
    assert changed == {0, 2}


def test_a_patient_of_two_folds_stays_out_of_both_fits() -> None:
    task, cases, _, _ = pooled()
    everywhere = [replace(entry, patient="p0-0") if entry.case_id in ("c0", "c1") else entry for entry in cases]
    without = [entry for entry in everywhere if entry.case_id != "c1"]
    full = {entry.case_id: entry.reference for entry in task.out_of_fold(everywhere)}
    left_out = {entry.case_id: entry.reference for entry in task.out_of_fold(without)}
    assert full["c0"] == left_out["c0"]
    assert full["c2"] != left_out["c2"]


@pytest.mark.parametrize("case_of", [lambda entry: 0, lambda entry: entry.fold if entry.truth == "low" else 0])
def test_without_two_classes_in_the_other_folds_the_threshold_is_a_half_and_says_so(case_of: Any) -> None:
    task, cases, _, _ = pooled()
    same = [replace(entry, fold=case_of(entry)) for entry in cases]
    assert task.out_of_fold(same) == same
    metrics = task.metrics(task.out_of_fold(same))
    assert metrics["sensitivity"].extra == {"threshold": 0.5, "threshold_source": "fixed, not fitted"}
    assert "brier_calibrated" not in metrics
    assert task.out_of_fold([]) == []


def test_several_classes_are_calibrated_without_a_threshold() -> None:
    generator = np.random.default_rng(1)
    truths = np.array(["a", "b", "c"])[generator.integers(3, size=60)].tolist()
    task = build(("a", "b", "c"), truths)
    cases = task.out_of_fold(scored(task, truths, generator.dirichlet([1, 1, 1], size=60), [0, 1] * 30))
    assert set(cases[0].reference) == {"calibrated_p_a", "calibrated_p_b", "calibrated_p_c"}
    assert sum(cases[0].reference.values()) == pytest.approx(1)
    metrics = task.metrics(cases)
    # probabilities that know nothing are brought near the shares of the classes
    assert metrics["brier_calibrated"].value < metrics["brier"].value - 0.1


def test_calibration_is_drawn_raw_and_calibrated() -> None:
    task, cases, positive, score = pooled()
    _, raw = task.figures(cases)
    _, figure = task.figures(task.out_of_fold(cases))
    assert isinstance(raw, CalibrationFigure) and isinstance(figure, CalibrationFigure)
    assert [name for name, _ in raw.curves] == ["high"]
    assert [name for name, _ in figure.curves] == ["high", "high, calibrated"]
    assert len(figure.curves[0][1]) == 9
    first = np.argsort(score)[:10]
    assert figure.curves[0][1][0].predicted == pytest.approx(score[first].mean(), abs=1e-6)
    assert figure.curves[0][1][0].observed == pytest.approx(positive[first].mean())


def test_other_classes_or_another_order_are_another_target() -> None:
    build().same_target(build())
    for classes in (("high", "low"), ("low", "medium", "high")):
        with pytest.raises(ValueError, match="the model's are low, high"):
            build().same_target(build(classes))


@pytest.mark.covers("B025", "F46")
def test_a_single_class_has_no_auc_but_says_why() -> None:
    task = build(truths=["low", "high"])
    metrics = task.metrics(scored(task, ["low", "low"], np.array([[0.4, 0.6], [0.7, 0.3]]), [0, 0]))
    assert metrics["auc"].value is None
    assert metrics["auc"].why
    assert metrics["sensitivity"].value is None
    assert metrics["specificity"].value == 0.5


def test_balanced_sampling_starts_from_equal_classes_and_groups_the_cases_by_class() -> None:
    truths = ["low"] * 9 + ["high"]
    task = build(truths=truths, class_sampling="balanced")
    assert task.fitted["constant"] == pytest.approx([0.5, 0.5])
    assert task.loss_scale == pytest.approx(math.log(2))
    assert (task.fitted["weights"], task.fitted["counts"]) == ([1.0, 1.0], [9, 1])
    head = task.head(SPEC).eval()
    assert head(features(2)).softmax(dim=1).flatten().tolist() == pytest.approx([0.5] * 4, abs=0.02)
    named = {"c1": "low", "c2": "high"}
    assert task.sampling_groups(named) == named
    assert task.sampling_groups({}) is not None
    assert build(truths=truths).sampling_groups(named) is None
    assert build(truths=truths).fitted["constant"] == pytest.approx([0.9, 0.1])
