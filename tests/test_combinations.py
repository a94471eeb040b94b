"""What ``training`` and the tasks ask of each other is refused when the configuration is read, both keys named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medmtl import api, networks, sharing, weighting
from medmtl import config as configuration
from medmtl.combinations import RESERVED
from medmtl.registry import Registry
from medmtl.weighting.base import Trained
from tests.test_config import MINIMAL, refusal, written

FAMILIES: dict[str, Registry[Any]] = {"network": networks.kinds, "sharing": sharing.kinds, "weighting": weighting.kinds}
BALANCED = MINIMAL.replace('classes: ["no", "1e3"]}', 'classes: ["no", "1e3"], class_sampling: balanced}')
GRADE = {"kind": "classification", "column": "grade", "classes": ["no", "1e3"]}


def test_balanced_classes_need_sampling_by_label(tmp_path: Path) -> None:
    error = refusal(tmp_path, BALANCED)
    assert (error.key, error.line, error.code) == ("tasks.grade.class_sampling", 9, "B142")
    assert "training.sampling is 'even'" in error.sentence and "set training.sampling: labelled" in error.sentence
    configuration.load(written(tmp_path, BALANCED), {"training.sampling": "labelled"})


@pytest.mark.covers("B141")
@pytest.mark.parametrize(
    ("block", "column", "other"),
    [
        ("heart_lv_ml: {kind: regression, column: x}", "heart_lv_ml", "heart"),
        ("heart_true: {kind: classification, column: x, classes: [a, b]}", "heart_true", "heart"),
        ("heart_file: {kind: segmentation, column: x, labels: {a: 1}}", "heart_file", "heart"),
        ("grade_p_no: {kind: ordinal, column: x, grades: [a, b, c]}", "grade_p_no", "grade"),
        ("volume_derived: {kind: regression, column: x}", "volume_derived", "volume"),
        ("dead_median_time: {kind: regression, column: x}", "dead_median_time", "dead"),
        ("dead_true_event: {kind: regression, column: x}", "dead_true_event", "dead"),
        ("grade_p: {kind: multilabel, findings: {no: x}}", "grade_p_no", "grade"),
    ],
)
def test_no_two_tasks_have_one_column_in_the_result_tables(tmp_path: Path, block: str, column: str, other: str) -> None:
    survival = "dead: {kind: survival, time: t, event: e, horizon: 5}"
    text = MINIMAL.replace("unit: ml", "unit: ml, derived_from: heart").replace("training:", f"  {survival}\ntraining:")
    configuration.load(written(tmp_path, text))
    name = block.partition(":")[0]
    error = refusal(tmp_path, text.replace("training:", f"  {block}\ntraining:"))
    assert (error.code, error.key, error.line) == ("B141", f"tasks.{name}", 12)
    assert f"have the column {column!r} twice, of tasks.{other} and of tasks.{name}; rename" in error.sentence


@pytest.mark.covers("B141")
def test_no_task_has_a_column_twice(tmp_path: Path) -> None:
    findings = "chest: {kind: multilabel, findings: {a: x, a_true: y}}"
    error = refusal(tmp_path, MINIMAL.replace("training:", f"  {findings}\ntraining:"))
    assert (error.code, error.key) == ("B141", "tasks.chest")
    assert "have the column 'chest_a_true' twice, both of this task; rename one of its findings" in error.sentence


@pytest.mark.covers("B141")
def test_no_task_has_a_column_of_the_tables_themselves(tmp_path: Path) -> None:
    findings = "outside: {kind: multilabel, findings: {training: x}}"
    error = refusal(tmp_path, MINIMAL.replace("training:", f"  {findings}\ntraining:"))
    assert (error.code, error.key) == ("B141", "tasks.outside")
    assert "'outside_training' is a column of the result tables" in error.sentence


def test_the_result_tables_have_the_columns_that_the_tasks_declare(trained_run: Path, tmp_path: Path) -> None:
    scores = api.evaluate(trained_run, out=tmp_path / "scores", device="cpu")["val"]
    answer = api.load(trained_run, device="cpu").predict(next(iter(scores.images.values())))
    tables = (tmp_path / "scores" / "cases.csv", answer.save(tmp_path / "answer"))
    headers = [table.read_text(encoding="utf-8").partition("\n")[0].split(",") for table in tables]
    written = {name for names in headers for name in names if "/" not in name}
    declared = {name for task in scores.tasks.values() for name in task.result_columns}
    assert written == declared | set(RESERVED)


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
        ("training.heads.grade.warm_up", 0, "greater than or equal to 1 (found 0)", "B138"),
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


def test_a_weighting_on_gradients_needs_shared_parameters(tmp_path: Path) -> None:
    configuration.load(written(tmp_path), {"weighting.kind": "pcgrad"})
    configuration.load(written(tmp_path), {"weighting.kind": "equal", "sharing.kind": "soft"})
    error = refusal(tmp_path, MINIMAL, {"weighting.kind": "pcgrad", "sharing.kind": "soft"})
    assert error.code == "B142"
    assert "weighting.kind 'pcgrad'" in error.sentence and "sharing.kind 'soft' has none" in error.sentence


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


@pytest.mark.parametrize(
    ("key", "value", "words", "code"),
    [
        ("training.tasks.grad", {"start": 0.5}, "'grad' is no task of this file; did you mean 'grade'?", "B141"),
        ("training.tasks.grade", {"start": 0.5, "stop": 0.5}, "stop 0.5 is not after start 0.5", "B142"),
        ("training.tasks.grade", {"start": 0.5, "ramp": 0.6}, "start 0.5 + ramp 0.6 is beyond stop 1", "B142"),
        ("training.tasks.grade.start", 1.0, "less than 1", "B138"),
        ("training.tasks.grade.stop", 1.5, "less than or equal to 1", "B138"),
        ("training.tasks.grade.stop", 0.0, "greater than 0", "B138"),
        ("training.tasks.grade.end", 0.5, "unknown key", "B132"),
        ("training.tasks.grade", {"start": 0.51, "stop": 0.53}, "none of the 10 steps of training.steps", "B142"),
        ("training.alternate", "random", "'none', 'cycle' or 'sample'", "B137"),
        ("training.telemetry", -1, "greater than or equal to 0", "B138"),
    ],
)
def test_times_of_a_task_that_cannot_be_are_refused(
    tmp_path: Path, key: str, value: Any, words: str, code: str
) -> None:
    error = refusal(tmp_path, MINIMAL, {key: value})
    assert words in error.sentence
    assert error.code == code
    assert error.key is not None and (key.startswith(error.key) or error.key.startswith(key))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (({"start": 0.2}, {"start": 0.3}, {"start": 0.2}), "no task trains from 0 to 0.2 of the training"),
        (({"stop": 0.2}, {"start": 0.5}, {"stop": 0.4}), "no task trains from 0.4 to 0.5 of the training"),
        (({"stop": 0.2}, {"stop": 0.7}, {"start": 0.1, "stop": 0.3}), "no task trains from 0.7 to 1 of the training"),
    ],
)
def test_a_training_without_a_task_for_some_of_it_is_refused(tmp_path: Path, times: Any, words: str) -> None:
    named = dict(zip(("heart", "grade", "volume"), times, strict=True))
    error = refusal(tmp_path, MINIMAL, {"training.tasks": named})
    assert (error.key, error.code) == ("training.tasks", "B142")
    assert words in error.sentence
    # a task that is not named always trains
    del named["grade"]
    configuration.load(written(tmp_path), {"training.tasks": named})


def test_times_that_meet_leave_nothing_out(tmp_path: Path) -> None:
    times = {"heart": {"stop": 0.5}, "grade": {"start": 0.5, "stop": 0.8}, "volume": {"start": 0.8, "ramp": 0.2}}
    config = configuration.load(written(tmp_path), {"training.tasks": times, "training.alternate": "cycle"})
    again = configuration.load(written(tmp_path, configuration.dump(config, tmp_path), "again.yaml"))
    assert again == config
    assert (again.training.tasks["volume"].ramp, again.training.alternate) == (0.2, "cycle")


def test_minutes_need_a_task_that_trains_at_once(tmp_path: Path) -> None:
    ramp = {"ramp": 0.2}
    given = {"training.minutes": 5, "training.tasks": dict.fromkeys(("heart", "grade", "volume"), ramp)}
    error = refusal(tmp_path, MINIMAL, given)
    assert error.key == "training.tasks"
    assert "training.minutes" in error.sentence and "training.steps" in error.sentence
    configuration.load(written(tmp_path), {**given, "training.tasks": {"grade": ramp, "volume": ramp}})
    configuration.load(written(tmp_path), {"training.tasks": given["training.tasks"]})


def test_a_method_on_gradients_and_one_task_a_step_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighting.kinds.get("equal"), "needs", "gradients")
    configuration.load(written(tmp_path))
    error = refusal(tmp_path, MINIMAL, {"training.alternate": "sample"})
    assert (error.key, error.code) == ("training.alternate", "B142")
    assert "weighting.kind 'equal'" in error.sentence


@pytest.mark.parametrize("kind", ["gls", "rlw", "famo"])
def test_a_method_that_gives_a_task_by_itself_the_weight_1_and_one_task_a_step_are_refused(
    tmp_path: Path, kind: str
) -> None:
    error = refusal(tmp_path, MINIMAL, {"training.alternate": "cycle", "weighting.kind": kind})
    assert (error.key, error.code) == ("training.alternate", "B142")
    assert f"weighting.kind '{kind}' gives one alone the weight 1" in error.sentence
    alone = weighting.kinds.get(kind)(weighting.kinds.get(kind).Options(kind=kind), ("heart", "grade"))
    trained = Trained([torch.nn.Parameter(torch.ones(1))])
    loss = 3 * trained.shared[0].sum()
    assert alone.backward({"heart": loss}, trained=trained) == {"heart": pytest.approx(1.0)}


@pytest.mark.parametrize(("name", "hint"), [("grad", "did you mean 'grade'?"), ("lung", "known: heart, grade")])
def test_a_group_of_tasks_names_tasks_of_the_file(tmp_path: Path, name: str, hint: str) -> None:
    given = {"sharing": {"kind": "hard", "shared_stages": 1, "groups": {"cases": [name]}}}
    error = refusal(tmp_path, MINIMAL, given)
    assert (error.key, error.code) == ("sharing.groups.cases", "B141")
    assert f"{name!r} is no task of this file; {hint}" in error.sentence


def test_a_group_has_a_name_that_tensors_can_have(tmp_path: Path) -> None:
    given = {"sharing": {"kind": "hard", "shared_stages": 1, "groups": {"cases.all": ["grade"]}}}
    error = refusal(tmp_path, MINIMAL, given)
    assert (error.key, error.code) == ("sharing", "B142")
    assert "rename 'cases.all'" in error.sentence


def test_gradients_on_nothing_shared_are_not_measured(tmp_path: Path) -> None:
    error = refusal(tmp_path, MINIMAL, {"training.telemetry": 5, "sharing.kind": "soft"})
    assert (error.key, error.code) == ("training.telemetry", "B142")
    assert "sharing.kind 'soft' has none" in error.sentence


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sharing.kind": "soft"}, "sharing.kind 'soft' gives 'grade' parts"),
        ({"sharing.kind": "ple"}, "sharing.kind 'ple' gives 'grade' parts"),
        (
            {"sharing": {"kind": "hard", "shared_stages": 1}},
            "set sharing: {kind: hard} with a voxel task in each group",
        ),
        ({"views.share": False}, "views.share false gives 'grade' an encoder"),
        ({"tasks": {"grade": GRADE}}, "no other task does; raise it, or start from a trained run by init.run"),
    ],
)
def test_what_only_a_case_task_reaches_gets_a_gradient(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    configuration.load(written(tmp_path), given)
    error = refusal(tmp_path, MINIMAL, {**given, "training.head_gradient": 0.0})
    assert (error.key, error.code) == ("training.head_gradient", "B142")
    assert words in error.sentence


GROUPED = {"kind": "hard", "shared_stages": 1, "groups": {"all": ["heart", "grade", "volume"]}}


# it reads covariates alone, and has no part in the network
BLIND = {"sharing": {**GROUPED, "groups": {"all": ["heart", "grade"]}}, "tasks.volume.inputs": "covariates"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sharing": GROUPED},
        {**BLIND, "cohort.covariates": {"age": "number"}},
        {"tasks": {"grade": GRADE}, "init": {"run": "donor"}},
    ],
)
def test_a_trunk_that_something_else_taught_needs_no_case_head(tmp_path: Path, given: dict[str, Any]) -> None:
    config = configuration.load(written(tmp_path), {**given, "training.head_gradient": 0.0})
    assert config.training.head_gradient == 0


CHANGED: dict[str, list[dict[str, Any]]] = {
    "sharing": [
        {"kind": "hard", "shared_stages": 2, "groups": {"cases": ["grade", "volume"]}},
        {"kind": "soft", "mu": 0.5, "distance": "l1", "strengths": [1.0, 0.0]},
        {"kind": "mmoe", "experts": 3},
        {"kind": "ple", "shared": 2, "own": 2},
        {"kind": "adapters", "adapter": "film"},
    ],
    "network": [{"kind": "resenc", "blocks_per_stage": [1, 2]}, {"kind": "segresnet", "decoder": "per_task"}],
    "weighting": [
        {"kind": "cagrad", "c": 0.2, "gradient": "last_stage", "loss_scale": "none"},
        {"kind": "pcd", "first": "heart"},
        {"kind": "stch", "mu": 0.1, "warm_up": 2},
    ],
}


def test_a_run_s_copy_of_the_configuration_says_the_same_for_every_kind(tmp_path: Path) -> None:
    blocks = [(key, {"kind": kind}) for key, family in FAMILIES.items() for kind in family.names() if kind != "fixed"]
    blocks += [(key, block) for key, held in CHANGED.items() for block in held]
    for key, block in blocks:
        config = configuration.load(written(tmp_path), {key: block})
        assert configuration.load(written(tmp_path, configuration.dump(config, tmp_path), "again.yaml")) == config
