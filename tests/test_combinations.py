"""What ``training`` and the tasks ask of each other is refused when the configuration is read, both keys named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medmtl import config as configuration
from medmtl.sharing.hard import Hard
from tests.test_config import MINIMAL, refusal, written

BALANCED = MINIMAL.replace('classes: ["no", "1e3"]}', 'classes: ["no", "1e3"], class_sampling: balanced}')


def test_balanced_classes_need_sampling_by_label(tmp_path: Path) -> None:
    error = refusal(tmp_path, BALANCED)
    assert (error.key, error.line, error.code) == ("tasks.grade.class_sampling", 9, "B142")
    assert "training.sampling is 'even'" in error.sentence and "set training.sampling: labelled" in error.sentence
    configuration.load(written(tmp_path, BALANCED), {"training.sampling": "labelled"})


def test_weights_and_sampling_are_not_balanced_together(tmp_path: Path) -> None:
    text = BALANCED.replace("class_sampling: balanced", "class_sampling: balanced, class_weights: balanced")
    error = refusal(tmp_path, text, {"training.sampling": "labelled"})
    assert error.key == "tasks.grade"
    assert "class_weights and class_sampling are both balanced" in error.sentence


@pytest.mark.parametrize(
    ("key", "value", "words", "code"),
    [
        ("training.heads.grad.lr", 1e-3, "'grad' is no task of this file; did you mean 'grade'?", "B141"),
        ("training.heads.heart.lr", 1e-3, "'heart' is a segmentation, whose head is trained with the trunk", "B142"),
        ("training.heads.grade.warm_up", 0, "greater than or equal to 1 (found '0')", "B138"),
        ("training.heads.grade.lr", 10.0, "less than 10", "B138"),
        ("training.heads.grade.rate", 1e-3, "unknown key", "B132"),
        ("training.optimiser", "adam", "'adamw' or 'sgd'", "B137"),
        ("training.sampling", "random", "'even' or 'labelled'", "B137"),
    ],
)
def test_a_head_of_its_own_must_be_that_of_a_case_task(
    tmp_path: Path, key: str, value: Any, words: str, code: str
) -> None:
    error = refusal(tmp_path, MINIMAL, {key: value})
    assert error.code == code
    assert words in error.sentence
    assert error.key is not None and (key.startswith(error.key) or error.key.startswith(key))


def test_heads_and_optimiser_survive_a_stored_configuration(tmp_path: Path) -> None:
    given = {"training.heads.grade": {"lr": 3e-4, "warm_up": 7}, "training.optimiser": "sgd", "training.lr": 0.01}
    first = configuration.load(written(tmp_path), given)
    assert (first.training.heads["grade"].lr, first.training.heads["grade"].warm_up) == (3e-4, 7)
    again = configuration.load(written(tmp_path, configuration.dump(first, tmp_path), "again.yaml"))
    assert again == first


def test_a_weighting_on_gradients_needs_shared_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration.load(written(tmp_path), {"weighting.kind": "pcgrad"})
    monkeypatch.setattr(Hard, "shares", False)
    configuration.load(written(tmp_path), {"weighting.kind": "equal"})
    error = refusal(tmp_path, MINIMAL, {"weighting.kind": "pcgrad"})
    assert error.code == "B142"
    assert "weighting.kind 'pcgrad'" in error.sentence and "sharing.kind 'hard' has none" in error.sentence


def test_a_weighting_on_gradients_is_given_no_scaler(tmp_path: Path) -> None:
    configuration.load(written(tmp_path), {"weighting.kind": "upgrad", "plan.precision": "bf16"})
    configuration.load(written(tmp_path), {"weighting.kind": "equal", "plan.precision": "fp16"})
    error = refusal(tmp_path, MINIMAL, {"weighting.kind": "upgrad", "plan.precision": "fp16"})
    assert error.code == "B142"
    assert "weighting.kind 'upgrad'" in error.sentence and "plan.precision fp16" in error.sentence


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "graddrop", "gradient": "last_stage"}, "weighting.gradient 'last_stage'"),
        ({"kind": "pcd", "first": "lung"}, "weighting.first 'lung' is no task"),
    ],
)
def test_options_of_a_weighting_that_fit_no_task_or_method(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    error = refusal(tmp_path, MINIMAL, {"weighting": given})
    assert (error.key, error.code) == ("weighting", "B138")
    assert words in error.sentence


def test_a_weighting_on_gradients_is_for_sixteen_tasks(tmp_path: Path) -> None:
    more = "".join(f"  t{n}: {{kind: regression, column: c{n}, unit: ml}}\n" for n in range(14))
    error = refusal(tmp_path, MINIMAL.replace("training:", f"{more}training:"), {"weighting.kind": "nash"})
    assert "weighting.kind 'nash'" in error.sentence and "tasks has 17" in error.sentence


@pytest.mark.parametrize(
    ("given", "decay"),
    [({}, 3e-2), ({"optimiser": "sgd"}, 3e-5), ({"optimiser": "sgd", "weight_decay": 0.1}, 0.1)],
)
def test_each_optimiser_has_its_own_default_decay(tmp_path: Path, given: dict[str, Any], decay: float) -> None:
    overrides = {f"training.{key}": value for key, value in given.items()}
    assert configuration.load(written(tmp_path), overrides).training.weight_decay == decay
