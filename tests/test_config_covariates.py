"""Which covariates a configuration may declare, and which tasks may read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmtl import config as configuration
from medmtl.errors import ConfigError
from tests.test_config import MINIMAL, refusal, written

DECLARED = MINIMAL.replace("tasks:", "  covariates: {age: number, sex: category}\ntasks:")
READING = DECLARED.replace("unit: ml}", "unit: ml, inputs: both}")


def test_covariates_enter_a_task_only_where_it_asks(tmp_path: Path) -> None:
    config = configuration.load(written(tmp_path, DECLARED))
    assert config.cohort.covariates == {"age": "number", "sex": "category"}
    assert config.used_covariates == {}
    reading = configuration.load(written(tmp_path, READING))
    assert reading.used_covariates == {"age": "number", "sex": "category"}
    assert [options.inputs for options in reading.tasks.values()] == ["image", "image", "both"]


def test_a_stored_configuration_reads_as_the_first_one(tmp_path: Path) -> None:
    config = configuration.load(written(tmp_path, READING))
    (tmp_path / "stored.yaml").write_text(configuration.dump(config, tmp_path), encoding="utf-8")
    assert configuration.load(tmp_path / "stored.yaml") == config


@pytest.mark.covers("B129")
@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("grade", "tasks.grade"),
        ("volume", "tasks.volume"),
        ("label", "tasks.heart"),
        ("image_ed", "the channel 'ed'"),
        ("case_id", "cohort.case"),
        ("patient_id", "cohort.patient"),
    ],
)
def test_a_covariate_that_is_something_else_too_is_refused(tmp_path: Path, column: str, other: str) -> None:
    error = refusal(tmp_path, READING.replace("sex: category", f"{column}: category"))
    assert (error.code, error.key, error.line) == ("B129", f"cohort.covariates.{column}", 7)
    assert f"the column {column!r} is also that of {other}" in str(error)


def test_the_column_of_the_split_is_no_covariate(tmp_path: Path) -> None:
    error = refusal(tmp_path, READING + "split: {column: sex}\n")
    assert (error.code, error.key) == ("B129", "cohort.covariates.sex")
    assert "that of split.column" in str(error)


def test_a_kind_that_is_none_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, READING.replace("category", "categorical"))
    assert (error.code, error.key) == ("B137", "cohort.covariates.sex")


@pytest.mark.covers("B142")
@pytest.mark.parametrize("inputs", ["covariates", "both"])
def test_a_task_cannot_read_what_is_not_declared(tmp_path: Path, inputs: str) -> None:
    error = refusal(tmp_path, MINIMAL.replace("unit: ml}", f"unit: ml, inputs: {inputs}}}"))
    assert (error.code, error.key, error.line) == ("B142", "tasks.volume.inputs", 10)
    assert "wants cohort.covariates, which declares none" in str(error)


@pytest.mark.covers("B142")
@pytest.mark.parametrize("inputs", ["covariates", "both"])
def test_a_voxel_task_reads_the_image(tmp_path: Path, inputs: str) -> None:
    error = refusal(tmp_path, READING.replace("rv: 2}", f"rv: 2}}, inputs: {inputs}"))
    assert (error.code, error.key) == ("B142", "tasks.heart.inputs")
    assert "a segmentation reads the image" in str(error)


def test_one_task_reads_the_image(tmp_path: Path) -> None:
    text = READING.replace("inputs: both", "inputs: covariates")
    configuration.load(written(tmp_path, text))
    alone = "\n".join(line for line in text.splitlines() if "heart" not in line and "grade" not in line)
    error = refusal(tmp_path, alone + "\n")
    assert isinstance(error, ConfigError)
    assert (error.code, error.key) == ("B142", "tasks")
    assert "none reads the image" in str(error)
