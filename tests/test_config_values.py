"""Values that the configuration refuses, by the ids of the catalogue."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from medmtl import config as configuration
from medmtl.errors import ConfigError
from tests.faults.processes import CONTEXT

MINIMAL = """\
schema: 1
cohort:
  table: cohort.csv
  case: case_id
  patient: patient_id
  channels: {ed: image_ed}
tasks:
  heart: {kind: segmentation, column: label, labels: {lv: 1, rv: 2}}
training:
  steps: 10
"""

HOSTILE = (
    "kind: !!python/object/apply:os.system [touch stray]",
    "kind: os.system",
    "kind: {_target_: os.system}",
    "kind: $import os",
    "kind: '${os.system}'",
    "kind: '@task'",
    "kind: '{{ import os }}'",
    "kind: __import__('antigravity')",
)
WATCHED = ("import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")


def refusal(folder: Path, old: str, new: str, overrides: dict[str, Any] | None = None) -> ConfigError:
    path = folder / "config.yaml"
    assert MINIMAL.count(old) == 1
    path.write_text(MINIMAL.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        configuration.load(path, overrides)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"[{caught.value.faults[0].code}] ")
    assert path.read_text() == MINIMAL.replace(old, new)
    return caught.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("steps: 1e3", "a whole number is expected (found 1000.0)"),
        ("steps: '10'", 'a whole number is expected (found the text "10"; write it without quotes)'),
        ("steps: '1e3'", "a whole number is expected (found '1e3')"),
        ("steps: 10\n  lr: '1e-3'", 'is expected (found the text "1e-3"; write it without quotes)'),
        ("steps: 10\n  average: 'true'", 'is expected (found the text "true"; write it without quotes)'),
        ("steps: 10.5", "a whole number is expected"),
        ("steps: true", "a whole number is expected (found true)"),
        ("steps: null\n  minutes: yes", "a number such as 1e-3 is expected (found 'yes')"),
        ("steps: 10\n  lr: 1,5", "a number such as 1e-3 is expected (found '1,5')"),
        ("steps: 10\n  lr: true", "a number such as 1e-3 is expected (found true)"),
        ("steps: 10\n  lr: null", "(found null)"),
        ("steps: 10\n  lr: -1e-3", "greater than 0"),
        ("steps: 10\n  average: yes", "true or false is expected (found 'yes')"),
        ("steps: 10\n  average: 1", "true or false is expected"),
        ("steps: 10\n  lr: [1]", "a number such as 1e-3 is expected"),
        ("steps: 10\nplan: []", "keys and values are expected"),
        ("steps: 10\nplan: {spacing: 1}", "a list is expected"),
        ("steps: 10\nplan: {spacing: [1, '2', 3]}", 'a number such as 1e-3 is expected (found the text "2"'),
        ("steps: 10\nplan: {batch: 0}", "greater than or equal to 1"),
    ],
)
@pytest.mark.covers("B138", "B164")
def test_a_number_a_truth_value_and_a_word_are_three_things(tmp_path: Path, value: str, words: str) -> None:
    error = refusal(tmp_path, "steps: 10", value)
    assert error.code == "B138"
    assert error.key is not None
    assert words in str(error)


@pytest.mark.covers("B138")
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("key", ["training.lr", "plan.memory_gb", "training.clip"])
def test_no_number_is_infinite_or_out_of_range(tmp_path: Path, key: str, value: float) -> None:
    error = refusal(tmp_path, "steps: 10", "steps: 10", {key: value})
    assert (error.code, error.key, error.line) == ("B138", key, None)


@pytest.mark.covers("B139")
@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize("block", ["split", "training"])
def test_a_seed_is_a_number_that_every_generator_takes(tmp_path: Path, block: str, seed: int) -> None:
    error = refusal(tmp_path, "steps: 10", "steps: 10", {f"{block}.seed": seed})
    assert (error.code, error.key) == ("B139", f"{block}.seed")


@pytest.mark.parametrize(
    ("old", "new", "key", "words", "code"),
    [
        ("  patient: patient_id\n", "", "cohort.patient", "that of cases where each is a person", "B022"),
        ("column: label", "column: image_ed", "tasks.heart", "'image_ed' is also the channel 'ed'", "B129"),
        ("{ed: image_ed}", "{ed: x, es: x}", "cohort.channels.es", "'ed' and 'es' are one column, 'x'", "B142"),
        (
            "steps: 10",
            "steps: 10\nsplit: {column: s, test: 0.2}",
            "split",
            "column decides the split, and test",
            "B142",
        ),
        ("steps: 10", "steps: 10\nsplit: {file: s, folds: 3, seed: 1}", "split", "folds, seed would be", "B142"),
        ("steps: 10", "steps: 10\nplan: {width: 32, max_width: 8}", "plan", "max_width 8 is below width 32", "B142"),
        ("heart:", "case_id:", "tasks.case_id", "a column of the result tables", "B141"),
        (
            "  heart:",
            "  heart: {kind: regression, column: x}\n  heart:",
            "tasks.heart",
            "twice, first in line 8",
            "B133",
        ),
        ("tasks:\n", "tasks: {}\nx:\n", "tasks", "at least 1 item", "B141"),
        ("tasks:\n", "tasks: [a]\nx:\n", "tasks", "keys and values", "B141"),
        ("tasks:\n", "tusks:\n", "tasks", "missing; name at least one task", "B141"),
        ("segmentation", "classification, classes: [a, b]", "tasks.heart.labels", "unknown key", "B132"),
        ("steps: 10", "steps: 10\naugmentation: {flips: w}", "augmentation.flips", "'none' or a list", "B137"),
        ("steps: 10", "steps: 10\naugmentation: {flips: [w]}", "augmentation.flips.0", "'x', 'y' or 'z'", "B137"),
        ("schema: 1", "schema: 2", "schema", "update medmtl", "B146"),
        ("schema: 1", "schema: 0", "schema", "no other that this version reads", "B146"),
        ("schema: 1", "schema: true", "schema", "should be 1", "B146"),
        ("schema: 1\n", "", "schema", "missing; this version reads 1", "B146"),
    ],
)
@pytest.mark.covers("B129", "B132", "B133", "B137", "B141", "B142", "B146")
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, old: str, new: str, key: str, words: str, code: str
) -> None:
    faults = {fault.key: fault for fault in refusal(tmp_path, old, new).faults}
    assert faults[key].code == code
    assert words in faults[key].sentence


def test_a_newer_schema_is_told_alone(tmp_path: Path) -> None:
    # what else is unknown to this version may be right in the newer one
    assert len(refusal(tmp_path, "schema: 1", "schema: 2\nnews: 1").faults) == 1


@pytest.mark.covers("B144")
@pytest.mark.parametrize("key", ["token", "PASSWORD", "wandb_api_key", "secrets"])
@pytest.mark.parametrize("place", ["{}: 0123456\n", "tracking:\n  {}: 0123456\n", "tracking: {{{}: [x, $0123456]}}\n"])
def test_a_secret_is_refused_and_never_shown(tmp_path: Path, key: str, place: str) -> None:
    error = refusal(tmp_path, "training:\n", place.format(key) + "training:\n")
    assert error.code == "B144"
    assert (error.key or "").rpartition(".")[2] == key
    assert "0123456" not in str(error)


def read_under_watch(folder: Path) -> None:
    """Load every hostile file under an audit hook, which cannot be removed, and so in a process of its own."""
    os.chdir(folder)
    configuration.load(Path("config.yaml"))  # all that is needed is loaded first
    seen: list[str] = []
    codes = []
    sys.addaudithook(lambda event, args: seen.append(f"{event} {args}") if event in WATCHED else None)
    for number in range(len(HOSTILE)):
        try:
            configuration.load(Path(f"{number}.yaml"))
            codes.append("accepted")
        except ConfigError as error:
            codes.append(str(error.code))
    Path("said.json").write_text(json.dumps([codes, list(seen)]))


@pytest.mark.covers("B135", "B136", "B137")
def test_a_hostile_file_imports_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(MINIMAL)
    for number, kind in enumerate(HOSTILE):
        (tmp_path / f"{number}.yaml").write_text(MINIMAL.replace("kind: segmentation", kind))
    process = CONTEXT.Process(target=read_under_watch, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    codes, seen = json.loads((tmp_path / "said.json").read_text())
    assert codes == ["B135", "B137", "B136", "B136", "B136", "B136", "B136", "B137"]
    assert seen == []
    assert not (tmp_path / "stray").exists()


LABELS = "labels: {lv: 1, rv: 2}"
TRAINING = "training:\n  steps: 10\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (LABELS, "labels: [lv]", "tasks.heart.labels: keys and values are expected, such as {core: 1, oedema: 2}"),
        (LABELS, "labels: {lv: [3, 4]}", "what has several values is one of the regions, such as {whole: ["),
        ("{ed: image_ed}", "[image_ed]", "keys and values are expected, such as {t1: image_t1}"),
        (TRAINING, f"init: runs/other\n{TRAINING}", "init: keys and values are expected, such as {run: runs/other}"),
        (TRAINING, f"augmentation: {{flips: x}}\n{TRAINING}", "a list is expected, such as [x, y]"),
        (TRAINING, "", "training: this key is missing; write training: {minutes: 30}, or {steps: 5000}"),
    ],
)
def test_what_is_expected_is_shown(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in str(refusal(tmp_path, old, new))


@pytest.mark.covers("B164")
def test_options_of_a_task_that_is_not_there_name_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(
        ConfigError, match=r"^\[B164\] tasks.haert.loss: no task is called 'haert'; did you mean 'heart'"
    ):
        configuration.load(path, {"tasks.haert.loss": "tversky"})
    other = {"tasks.other.column": "other", "tasks.other.kind": "regression"}
    assert list(configuration.load(path, other).tasks) == ["heart", "other"]
