from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from medmtl import config as configuration
from medmtl.config import parse_override, parse_overrides
from medmtl.errors import ConfigError, InputError

MINIMAL = """\
schema: 1
cohort:
  table: data/cohort.csv
  case: case_id
  patient: patient_id
  channels: {ed: image_ed}
tasks:
  heart: {kind: segmentation, column: label, labels: {lv: 1, rv: 2}}
  grade: {kind: classification, column: grade, classes: ["no", "1e3"]}
  volume: {kind: regression, column: volume, unit: ml}
training:
  steps: 10
"""


def written(folder: Path, text: str = MINIMAL, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        configuration.load(written(folder, text), overrides)
    return caught.value


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    config = configuration.load(written(tmp_path))
    assert (config.network.kind, config.sharing.kind, config.weighting.kind) == ("unet", "hard", "equal")
    assert (config.split.folds, config.split.test, config.training.seed) == (5, 0.0, 0)
    assert list(config.tasks) == ["heart", "grade", "volume"]
    assert config.training.minutes is None


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    text = MINIMAL.replace("  case:", "  roots: [../scans, /data]\n  case:") + "cache: {folder: ../cache}\n"
    config = configuration.load(written(tmp_path, text))
    assert config.cohort.table == tmp_path / "data/cohort.csv"
    assert config.cohort.roots == (tmp_path.parent / "scans", Path("/data"))
    assert config.cache.folder == tmp_path.parent / "cache"


@pytest.mark.covers("B132", "B137", "B138", "B139", "B141", "B142", "B146", "P23")
@pytest.mark.parametrize(
    ("old", "new", "key", "line", "words", "code"),
    [
        ("schema: 1\n", "", "schema", None, "missing", "B146"),
        ("schema: 1", "schema: 2", "schema", 1, "should be 1", "B146"),
        ("  case: case_id\n", "", "cohort.case", 2, "missing", "B132"),
        (
            "  patient: patient_id",
            "  patiant: patient_id\n  patient: p",
            "cohort.patiant",
            5,
            "did you mean 'patient'",
            "B132",
        ),
        ("steps: 10", "steps: 10\n  zzz: 1", "training.zzz", 13, "known: steps, minutes", "B132"),
        ("steps: 10", "steps: 0", "training.steps", 12, "greater than or equal to 1 (found 0)", "B138"),
        ("steps: 10", "steps: 10\n  minutes: 1", "training", 11, "exactly one of steps and minutes", "B142"),
        ("steps: 10", "keep: 3", "training", 11, "exactly one of steps and minutes", "B142"),
        ("steps: 10", "steps: 10\n  lr: fast", "training.lr", 13, "found 'fast'", "B138"),
        ("steps: 10", "steps: 10\n  lr: 0", "training.lr", 13, "greater than 0", "B138"),
        ("steps: 10", "steps: 10\n  seed: 4294967296", "training.seed", 13, "less than 4294967296", "B139"),
        ("steps: 10", "steps: 10\nprimary: hart", "primary", 13, "no task of this file", "B141"),
        ("steps: 10", "steps: 10\nsplit: {column: a, file: b}", "split", 13, "not both", "B142"),
        ("steps: 10", "steps: 10\nsplit: {test: 1.0}", "split.test", 13, "less than 1", "B138"),
        ("steps: 10", "steps: 10\nplan: {shape: [8, -8, 8]}", "plan.shape.1", 13, "greater than or equal to 1", "B138"),
        (
            "steps: 10",
            "steps: 10\nplan: {normalisation: {edd: ct}}",
            "plan.normalisation.edd",
            13,
            "did you mean 'ed'",
            "B132",
        ),
        ("steps: 10", "steps: 10\nweighting: equal", "weighting", 13, "mapping with a kind", "B137"),
        ("steps: 10", "steps: 10\nweighting: {kind: equl}", "weighting.kind", 13, "Did you mean 'equal'", "B137"),
        ("steps: 10", "steps: 10\nnetwork: {kind: unet, bloks: plain}", "network.bloks", 13, "'blocks'", "B132"),
        ("  channels: {ed: image_ed}", "  channels: {}", "cohort.channels", 6, "at least 1", "B138"),
        ("kind: segmentation", "kind: segmentaton", "tasks.heart.kind", 8, "Did you mean 'segmentation'", "B137"),
        ("column: label,", "colunm: label, column: x,", "tasks.heart.colunm", 8, "'column'", "B132"),
        ("rv: 2", "rv: 1", "tasks.heart", 8, "two labels have one value", "B141"),
        ("heart:", "Heart:", "tasks", 8, "task name must match", "B141"),
        ("heart:", "fold:", "tasks.fold", 8, "is a column of the result tables", "B141"),
        (
            "lv: 1",
            "LV: 1",
            "tasks.heart.labels.LV",
            8,
            "a name is a small letter and then small letters, digits and _",
            "B141",
        ),
        ('"no", "1e3"', '"no", "no"', "tasks.grade.classes", 9, "differ", "B141"),
        ('"no", "1e3"', "a", "tasks.grade.classes", 9, "at least 2 items", "B141"),
        ("lv: 1", "lv: 0", "tasks.heart.labels.lv", 8, "0 is the background and is not named; remove it", "B141"),
        ('"no", "1e3"', '"no", 0', "tasks.grade.classes.1", 9, '(found the number 0; write "0")', "B141"),
        ('"no", "1e3"', '"no", 1e3', "tasks.grade.classes.1", 9, "(found 1000.0; write it in quotes)", "B141"),
        ('"no", "1e3"', '"no", true', "tasks.grade.classes.1", 9, "(found true; write it in quotes)", "B141"),
        ("steps: 10", "steps: 10\nplan: {patch: [8, 8, 8]}", "plan.patch", 13, "here it is plan.shape", "B132"),
        ("steps: 10", "epochs: 10", "training.epochs", 12, "here it is training.steps or training.minutes", "B132"),
        ("steps: 10", "steps: 10\n  batch_size: 2", "training.batch_size", 13, "here it is plan.batch", "B132"),
        ("steps: 10", "steps: 10\nplan: {patch_size: 8}", "plan.patch_size", 13, "here it is plan.shape", "B132"),
        ("unit: ml", "unit: ml, range: [9, 1]", "tasks.volume", 10, "lowest, highest", "B141"),
    ],
)
def test_a_fault_is_named_with_key_line_and_remedy(
    tmp_path: Path, old: str, new: str, key: str, line: int | None, words: str, code: str
) -> None:
    assert old in MINIMAL
    error = refusal(tmp_path, MINIMAL.replace(old, new, 1))
    assert (error.code, error.key, error.line) == (code, key, line)
    assert str(error).startswith(f"[{code}] ")
    assert words in str(error)
    assert str(error).count(key) == 1


def test_several_faults_are_all_named(tmp_path: Path) -> None:
    text = MINIMAL.replace("training:", "trainig:").replace("steps: 10", "steps: 10\nplan: {batch: 0}")
    message = str(refusal(tmp_path, text))
    assert "training: this key is missing" in message
    assert "line 11: trainig: unknown key; did you mean 'training'?" in message
    assert "line 13: plan.batch" in message


@pytest.mark.covers("B132", "B137")
def test_faults_of_different_blocks_are_told_together(tmp_path: Path) -> None:
    text = MINIMAL.replace("kind: segmentation", "kind: torch.nn.Linear").replace("unit: ml", "unti: ml")
    error = refusal(tmp_path, text + "bogus: 1\nnetwork: {kind: unet, bloks: plain}\nsplit: {tune: 0.1}\n")
    assert [(fault.code, fault.key, fault.line) for fault in error.faults] == [
        ("B132", "split.tune", 15),
        ("B132", "network.bloks", 14),
        ("B137", "tasks.heart.kind", 8),
        ("B132", "tasks.volume.unti", 10),
        ("B132", "bogus", 13),
    ]
    assert all(str(fault) in str(error) for fault in error.faults)


@pytest.mark.parametrize(
    ("addition", "key"),
    [
        ("split: {tune: 0.1}", "split.tune"),
        ("cache: {max_gb: 5}", "cache.max_gb"),
    ],
)
def test_what_comes_later_is_refused_by_name(tmp_path: Path, addition: str, key: str) -> None:
    error = refusal(tmp_path, MINIMAL + addition + "\n")
    assert (error.key, error.line) == (key, 13)
    assert "not in this version" in str(error)


def test_later_keys_inside_a_block_are_refused_by_name(tmp_path: Path) -> None:
    error = refusal(tmp_path, MINIMAL.replace("steps: 10", "steps: 10\n  select: heart/dice", 1))
    assert error.key == "training.select"
    assert "not in this version" in str(error)


def test_the_contracts_way_to_say_no_to_later_keys_is_accepted(tmp_path: Path) -> None:
    text = MINIMAL + "init: null\ninference: {overlap: 0.5, tta: none}\ncache: {folder: null, max_gb: null}\n"
    assert configuration.load(written(tmp_path, text)) == configuration.load(written(tmp_path))


@pytest.mark.covers("B138")
@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("weighting: {kind: fixed, weights: {heart: 1}}", "every task once"),
        ("weighting: {kind: fixed, weights: {heart: 0, grade: 0, volume: 0}}", "all 0"),
        ("weighting: {kind: fixed, weights: {heart: -1, grade: 1, volume: 1}}", "greater than or equal to 0"),
    ],
)
def test_combinations_that_cannot_train_are_refused(tmp_path: Path, addition: str, words: str) -> None:
    error = refusal(tmp_path, MINIMAL + addition + "\n")
    assert (error.code, error.line) == ("B138", 13)
    assert words in str(error)


@pytest.mark.covers("B141")
def test_a_derived_value_must_name_a_task_with_masks(tmp_path: Path) -> None:
    text = MINIMAL.replace("unit: ml", "unit: ml, derived_from: liver")
    error = refusal(tmp_path, text)
    assert (error.code, error.key, error.line) == ("B141", "tasks.volume.derived_from", 10)
    assert "'liver' is no task with a mask; those of this file: heart" in str(error)


@pytest.mark.covers("B131")
@pytest.mark.parametrize("text", ["- a\n- b\n", "word\n"])
def test_a_file_must_hold_keys(tmp_path: Path, text: str) -> None:
    assert "keys and values" in str(refusal(tmp_path, text))


@pytest.mark.covers("B130")
def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        configuration.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"is a folder; give its config\.yaml"):
        configuration.load(tmp_path)
    with pytest.raises(ConfigError, match=r"cohort\.csv is a table; give the YAML file that names it"):
        configuration.load(tmp_path / "cohort.csv")
    (tmp_path / "latin.yaml").write_bytes(b"schema: 1 # \xe9\n")
    with pytest.raises(ConfigError, match="UTF-8 at byte 12"):
        configuration.load(tmp_path / "latin.yaml")
    (tmp_path / "empty.yaml").write_bytes(b"")
    with pytest.raises(ConfigError, match="empty"):
        configuration.load(tmp_path / "empty.yaml")
    (tmp_path / "large.yaml").write_bytes(b"# \xe2\x82\xac\n" + b"#" * (1 << 20))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        configuration.load(tmp_path / "large.yaml")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="a pipe or a device"):  # and it does not wait for a writer
        configuration.load(tmp_path / "pipe")
    for name in ("none.yaml", "latin.yaml", "empty.yaml", "large.yaml", "pipe", "."):
        with pytest.raises(ConfigError) as caught:
            configuration.load(tmp_path / name)
        assert (caught.value.code, caught.value.exit_code) == ("B130", 2)


def test_steps_and_minutes_displace_each_other_when_set(tmp_path: Path) -> None:
    path = written(tmp_path)
    timed = configuration.load(path, {"training.minutes": 2}).training
    assert (timed.steps, timed.minutes) == (None, 2.0)
    counted = configuration.load(path, {"training.minutes": 2, "training.steps": 7}).training
    assert (counted.steps, counted.minutes) == (7, None)
    unset = configuration.load(path, {"training.minutes": None}).training
    assert (unset.steps, unset.minutes) == (10, None)


def test_a_key_of_a_block_that_the_file_leaves_out_is_set_beside_its_default_kind(tmp_path: Path) -> None:
    overrides = {"network.decoder": "per_task", "weighting.loss_scale": "none", "sharing.kind": "soft"}
    config = configuration.load(written(tmp_path), overrides)
    assert (config.network.kind, config.network.decoder) == ("unet", "per_task")
    assert (config.weighting.kind, config.weighting.loss_scale, config.sharing.kind) == ("equal", "none", "soft")
    # what the file itself says is still taken at its word
    error = refusal(tmp_path, MINIMAL + "network: {norm: batch}\n", {"network.decoder": "per_task"})
    assert (error.code, error.key) == ("B137", "network")


def test_a_set_path_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    monkeypatch.chdir("/")
    set_ = dict([parse_override("cohort.table=x.csv"), parse_override("cohort.roots=[a, /b]")])
    config = configuration.load(path, set_)
    assert config.cohort.table == Path("/x.csv")
    assert config.cohort.roots == (Path("/a"), Path("/b"))
    assert configuration.load(path, {"cache.folder": Path("c")}).cache.folder == Path("/c")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training.lr=1e-3", "training.lr", 1e-3),
        ("augmentation.flips=[x, z]", "augmentation.flips", ["x", "z"]),
        ("plan.batch=null", "plan.batch", None),
        ("cohort.table=null", "cohort.table", "null"),
        ("split.file=a=b.json", "split.file", "a=b.json"),
    ],
)
def test_a_set_value_is_read_as_yaml_and_a_path_as_typed(text: str, key: str, value: Any) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("training.lr", "B164", marks=pytest.mark.covers("B164")),
        pytest.param("=1", "B164", marks=pytest.mark.covers("B164")),
        pytest.param("split.file=", "B164", marks=pytest.mark.covers("B164")),
        pytest.param("training.lr=${x}", "B136", marks=pytest.mark.covers("B136")),
        pytest.param("training.lr=012", "B134", marks=pytest.mark.covers("B134")),
        pytest.param("cohort.site=\udce9", "B131", marks=pytest.mark.covers("B166")),
        pytest.param("cohort.api_key=12", "B144", marks=pytest.mark.covers("B144")),
    ],
)
def test_a_malformed_setting_is_refused(text: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert caught.value.code == code
    assert "12" not in str(caught.value).replace("012", "")


@pytest.mark.covers("B163")
def test_a_key_is_set_once() -> None:
    assert parse_overrides(["training.lr=1", "training.seed=2"]) == {"training.lr": 1, "training.seed": 2}
    with pytest.raises(ConfigError, match="gives it twice") as caught:
        parse_overrides(["training.lr=1", "training.seed=1", "training.lr=1"])
    assert (caught.value.code, caught.value.key) == ("B163", "training.lr")


def test_a_fault_that_was_set_names_no_line(tmp_path: Path) -> None:
    text = MINIMAL.replace("steps: 10", "steps: 10\n  lr: 1e-3")
    error = refusal(tmp_path, text, {"training.lr": "fast"})
    assert (error.key, error.line) == ("training.lr", None)
    assert "did you mean 'training'" in str(refusal(tmp_path, text, {"trainig.lr": 1}))
    assert "holds no keys" in str(refusal(tmp_path, text, {"cohort.table.x": 1}))


def test_what_is_dumped_loads_as_it_was_from_another_folder(tmp_path: Path) -> None:
    text = MINIMAL + "cache: {folder: here}\nsplit: {file: s.json}\nplan: {spacing: [1, 1.5, 2], precision: fp32}\n"
    config = configuration.load(written(tmp_path, text))
    folder = tmp_path / "runs" / "a$b"
    folder.mkdir(parents=True)
    dumped = configuration.dump(config, folder)
    again = configuration.load(written(folder, dumped))
    assert again.cohort.table.resolve() == config.cohort.table
    assert str(tmp_path) not in dumped
    assert configuration.dump(again, folder) == dumped
    assert again.tasks == config.tasks
    assert again.plan == config.plan


def test_an_optional_channel_is_read_and_written(tmp_path: Path) -> None:
    text = MINIMAL.replace("{ed: image_ed}", "{ed: image_ed, es: {column: image_es, optional: true}}")
    config = configuration.load(written(tmp_path, text))
    assert config.cohort.columns == {"ed": "image_ed", "es": "image_es"}
    assert config.cohort.optional == ("es",)
    again = written(tmp_path, configuration.dump(config, tmp_path))
    assert configuration.load(again) == config


@pytest.mark.covers("B132")
@pytest.mark.parametrize(
    ("channel", "key", "words"),
    [
        ("{colum: image_es}", "cohort.channels.es.colum", "unknown key; did you mean 'column'?"),
        ("{optional: true}", "cohort.channels.es.column", "this key is missing"),
        ("{column: image_es, optional: 1}", "cohort.channels.es.optional", "true or false is expected"),
        (
            "3",
            "cohort.channels.es",
            'text (in quotes) is expected or keys and values are expected (found the number 3; write "3")',
        ),
        ("{column: image_ed, optional: true}", "cohort.channels.es", "are one column, 'image_ed'"),
    ],
)
def test_a_bad_channel_is_refused_by_its_key(tmp_path: Path, channel: str, key: str, words: str) -> None:
    error = refusal(tmp_path, MINIMAL.replace("{ed: image_ed}", f"{{ed: image_ed, es: {channel}}}"))
    assert key in [fault.key for fault in error.faults]
    assert words in str(error)


@pytest.mark.covers("B164")
@pytest.mark.parametrize(
    ("given", "found"),
    [("training.lr=1e-3", "a str"), (["training.lr=1e-3"], "a list"), ({1: 2}, "the key 1"), ("", "a str")],
)
def test_overrides_that_are_no_mapping_are_refused_in_words(tmp_path: Path, given: Any, found: str) -> None:
    with pytest.raises(
        InputError, match=r"\[B164\] overrides are a mapping of dotted keys to values, .*; found "
    ) as caught:
        configuration.load(written(tmp_path), given)
    assert str(caught.value).endswith(found)
