from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from medmtl.checking import Checked
from medmtl.data.case import Case
from medmtl.evaluation import score
from medmtl.evaluation.reference_window import moved_cases, moved_json
from medmtl.evaluation.selection import Group, Selection
from medmtl.tasks.base import ScoredCase, Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.regression import Regression

GRADE = Classification.Options.model_validate({"kind": "classification", "column": "g", "classes": ["low", "high"]})
SIZE = Regression.Options.model_validate({"kind": "regression", "column": "s", "unit": "mm"})
TASK = Classification("grade", GRADE, Classification("grade", GRADE).fit(["low", "high"]))


def case(number: int, high: bool, probability: float) -> ScoredCase:
    result = TASK.result(torch.tensor([1 - probability, probability]), {})
    return ScoredCase(f"c{number}", f"p{number}", None, 0, "high" if high else "low", result)


def test_both_windows_are_scored_on_the_cases_that_have_a_reference() -> None:
    rng = np.random.default_rng(0)
    moved = []
    for number in range(40):
        high = number % 2 == 0
        predicted = case(number, high, float(rng.uniform()))
        pair = moved_cases({"grade": TASK}, {"grade": predicted}, {}, {"grade": (0.1, 0.9) if high else (0.9, 0.1)})
        moved.append(pair["grade"])
    found = moved_json(TASK, moved)
    assert list(found) == ["auc_reference_window", "auc_predicted_window"]
    assert found["auc_reference_window"]["value"] == pytest.approx(1.0)
    assert 0.2 < found["auc_predicted_window"]["value"] < 0.8
    assert found["auc_reference_window"]["n"] == found["auc_predicted_window"]["n"] == 40


def test_a_case_that_is_not_labelled_or_not_scored_is_left_out() -> None:
    unlabelled = ScoredCase("c", "p", None, 0, None, TASK.result(torch.tensor([0.5, 0.5]), {}))
    assert moved_cases({"grade": TASK}, {"grade": unlabelled}, {}, {"grade": (0.5, 0.5)}) == {}
    assert moved_cases({"grade": TASK}, {}, {}, {"grade": (0.5, 0.5)}) == {}
    assert moved_json(TASK, []) == {}


def test_errors_are_those_of_the_reference_window() -> None:
    task = Regression("size", SIZE, Regression("size", SIZE).fit([1.0, 2.0, 3.0]))
    predicted = ScoredCase("c", "p", None, 0, 2.0, task.result(torch.tensor([5.0]), {}), {"absolute_error": 3.0})
    moved = moved_cases({"size": task}, {"size": predicted}, {}, {"size": (2.5,)})["size"]
    assert moved.reference.scores["absolute_error"] == pytest.approx(0.5)
    assert moved.predicted.scores["absolute_error"] == pytest.approx(3.0)


class Asked(Exception):
    """By the test."""


class Modelless(Group):
    def reference(self) -> dict[str, dict[str, float]]:
        return {}

    def fitted(self) -> dict[str, Task]:
        return {}


SOUND = cast(Any, SimpleNamespace(findings=[]))


class Predictor:
    unfinished = ()

    def __init__(self, runs: object, device: str, *, to_first: bool) -> None:
        pass

    def predict(self, case: Case, *, with_reference: bool) -> None:
        raise Asked(with_reference)


@pytest.mark.parametrize(("checked", "asked"), [(None, True), (SOUND, False)], ids=["own cohort", "another cohort"])
def test_labels_of_another_cohort_are_not_read_as_the_training_reads_its_own(
    checked: Checked | None, asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "Predictor", Predictor)
    monkeypatch.setattr(score, "take_over", lambda *_: None)
    cases = {"a": Case("a", "a", None, 2, {})}
    selection = Selection("all", (0,), {}, {}, [Modelless(0, [], ["a"])], cases, {}, checked=checked)
    with pytest.raises(Asked) as raised:
        score.evaluate_selection(selection, tmp_path)
    assert raised.value.args == (asked,)
