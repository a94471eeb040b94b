"""Multi-label: cells, missing findings, and metrics per finding against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from medmtl.tasks.base import CaseTask, CellError, ScoredCase
from medmtl.tasks.multilabel import Multilabel, MultilabelOptions
from tests.tasks.contract import CaseTaskContract, case

FINDINGS = {"nodule": "has_nodule", "effusion": "has_effusion"}
TRUTHS: tuple[Any, ...] = ((True, False), (False, None), (None, True), (True, True), (False, False))


class TestMultilabel(CaseTaskContract):
    options: ClassVar[Mapping[str, Any]] = {"kind": "multilabel", "findings": FINDINGS}
    truths: ClassVar[Sequence[Any]] = TRUTHS
    primary = "auc"
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"findings": {}}, "at least 1"),
        ({"findings": {"Nodule": "a"}}, "match pattern"),
        ({"findings": {"a": "x", "b": "x"}}, "columns of findings must differ"),
        ({"values": ["yes", "yes"]}, "values must differ"),
        ({"values": [0, 1]}, "valid string"),
    )

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        return task.encode(truth).clamp(min=0)

    def test_an_empty_cell_is_not_labelled(self) -> None:
        assert self.unfitted().read(case(cells=dict.fromkeys(FINDINGS.values()))) is None

    def test_cells_carry_the_tasks_name_and_are_finite(self) -> None:
        cells = self.predicted()[0].result.cells("chest")
        assert list(cells) == ["chest_nodule", "chest_effusion"] == list(build().answer_columns)
        assert all(isinstance(value, float) and 0 < value < 1 for value in cells.values())


def build(truths: Sequence[Any] = TRUTHS, **options: Any) -> Multilabel:
    made = MultilabelOptions.model_validate({"kind": "multilabel", "findings": FINDINGS, **options})
    return Multilabel("chest", made, Multilabel("chest", made).fit(truths))


def read(nodule: str | None, effusion: str | None, **options: Any) -> Any:
    return build(**options).read(case(cells={"has_nodule": nodule, "has_effusion": effusion}))


def test_each_finding_may_be_missing() -> None:
    assert read("1", None) == (True, None)
    assert read("0", "1") == (False, True)
    assert read("no", "yes", values=["no", "yes"]) == (False, True)
    assert build().truth_cells((True, None)) == {"chest_nodule_true": "1", "chest_effusion_true": None}
    assert build().truth_cells(None) == {"chest_nodule_true": None, "chest_effusion_true": None}


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        pytest.param(cell, code, marks=pytest.mark.covers(code))
        for cell, code in (("yes", "B112"), ("1.0", "B113"), ("?", "B116"), ("0;1", "B118"))
    ],
)
def test_what_is_neither_value_is_refused(cell: str, code: str) -> None:
    with pytest.raises(CellError) as caught:
        read("1", cell)
    assert (caught.value.code, caught.value.column, caught.value.found) == (code, "has_effusion", cell)


@pytest.mark.covers("B115")
def test_a_finding_that_is_never_present_is_refused_by_name() -> None:
    with pytest.raises(CellError, match="no case of effusion '1'") as caught:
        build([(True, False), (False, None), (True, False)])
    assert (caught.value.code, caught.value.column) == ("B115", "has_effusion")


def test_strata_are_the_known_findings() -> None:
    assert build().strata({"a": (True, None), "b": (False, True)}) == {
        "a": {"nodule '1'"},
        "b": {"nodule '0'", "effusion '1'"},
    }


def test_a_constant_answer_looks_constant_whatever_is_known() -> None:
    task = build()
    usual = torch.tensor(task.fitted["constant"])
    for truth in TRUTHS:
        assert task.probe_pair(usual, task.encode(truth))[0] == pytest.approx(0, abs=1e-6)


def test_the_constant_of_a_site_is_its_share_and_that_of_training_where_it_knows_none() -> None:
    task = build()
    found = task.constant_result([(True, None), (False, None), (True, None)]).probabilities
    assert found == pytest.approx({"nodule": 2 / 3, "effusion": task.fitted["constant"][1]})


def test_other_findings_are_another_target_and_other_values_are_not() -> None:
    build().same_target(build(values=["no", "yes"]))
    with pytest.raises(ValueError, match="the model's are nodule, effusion"):
        build().same_target(build([(True,), (False,)], findings={"nodule": "a"}))


def scored(n: int = 90) -> tuple[Multilabel, list[ScoredCase], np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    positive, known = random.random((n, 2)) < 0.4, random.random((n, 2)) < 0.8
    known[:, 0] |= ~known.any(axis=1)
    score = 1 / (1 + np.exp(-(random.normal(size=(n, 2)) + positive - 0.5)))
    task = build()
    cases = []
    for index in range(n):
        pairs = zip(positive[index].tolist(), known[index].tolist(), strict=True)
        truth = tuple(value if seen else None for value, seen in pairs)
        result = task.result(torch.tensor(score[index]), {})
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, index % 3, truth, result))
    return task, cases, positive, known, score


def test_each_finding_is_scored_over_the_cases_that_know_it() -> None:
    task, cases, positive, known, score = scored()
    metrics = task.metrics([replace(entry, fold=0) for entry in cases])
    areas = []
    for index, finding in enumerate(FINDINGS):
        truth, answer = positive[known[:, index], index], score[known[:, index], index]
        areas.append(roc_auc_score(truth, answer))
        assert metrics[f"auc/{finding}"].value == pytest.approx(areas[-1])
        expected = average_precision_score(truth, answer)
        assert metrics[f"average_precision/{finding}"].value == pytest.approx(expected)
        assert metrics[f"brier/{finding}"].value == pytest.approx(brier_score_loss(truth, answer))
        assert metrics[f"sensitivity/{finding}"].extra["threshold"] == 0.5
        assert metrics[f"auc/{finding}"].n == known[:, index].sum()
    assert metrics["auc"].value == pytest.approx(np.mean(areas))
    assert (metrics["auc"].n, metrics["auc"].extra) == (90, {"n_areas": 2})
    assert metrics["auc"].ci95 is not None


def test_the_interval_of_the_mean_is_that_of_one_finding_where_there_is_one() -> None:
    truths = [(True,), (False,)]
    task, cases, *_ = scored()
    one = build(truths, findings={"nodule": "a"})
    known = [replace(entry, truth=entry.truth[:1]) for entry in cases if entry.truth[0] is not None]
    answers = [one.result(torch.tensor([entry.result.cells("x")["x_nodule"]]), {}) for entry in known]
    metrics = one.metrics([replace(entry, result=answer) for entry, answer in zip(known, answers, strict=True)])
    assert metrics["auc"].ci95 == metrics["auc/nodule"].ci95
    assert metrics["auc"].value == task.metrics(cases)["auc/nodule"].value


def test_thresholds_and_calibrators_are_per_finding() -> None:
    task, cases, *_ = scored()
    found = task.out_of_fold(cases)
    assert {key for entry in found for key in entry.reference} == {
        f"{key}/{finding}" for key in ("threshold", "calibrated_p_0", "calibrated_p_1") for finding in FINDINGS
    }
    for entry in found:
        assert ("threshold/effusion" in entry.reference) == (entry.truth[1] is not None)
    metrics = task.metrics(found)
    assert len(metrics["sensitivity/nodule"].extra["threshold_by_fold"]) == 3
    assert metrics["brier_calibrated/effusion"].value is not None
    roc, calibration = task.figures(found)
    assert [name for name, *_ in roc.curves][:2] == ["nodule, fold 0", "nodule, fold 1"]  # type: ignore[union-attr]
    assert {name for name, *_ in calibration.curves} >= {"nodule", "nodule, calibrated"}  # type: ignore[union-attr]


def test_the_expected_width_is_that_of_the_rarest_finding() -> None:
    task, cases, *_ = scored()
    labels = [[(entry.patient, entry.truth) for entry in cases if entry.fold == fold] for fold in range(3)]
    width = task.expected_width(labels)
    assert width.width is not None and math.isfinite(width.width)
    assert width.metric == "auc"
    few = task.expected_width([fold[:4] for fold in labels])
    assert (few.width, few.why) == (None, "fewer than 10 patients in the rarest class")
