from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medmtl
from medmtl import api
from medmtl.errors import LATER, InputError
from medmtl.tasks.base import Task


def test_every_public_name_can_be_had_and_is_listed() -> None:
    assert sorted(medmtl.__all__) == medmtl.__all__
    assert all(getattr(medmtl, name) is not None for name in medmtl.__all__)
    written_here = {
        name
        for name, value in vars(api).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == api.__name__
    }
    # what a call returns is documented there, and needs no name to be made with
    assert written_here - {"CheckReport"} == set(medmtl.__all__) - {"MedmtlError", "Model", "__version__"}


def test_any_other_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = medmtl.trian


@pytest.mark.parametrize("name", LATER)
def test_what_is_not_built_is_refused_by_name_when_it_is_called(name: str) -> None:
    with pytest.raises(medmtl.MedmtlError, match=f"^medmtl.{name} is not in this version"):
        getattr(medmtl, name)("config.yaml", out="x", name="y")
    assert name not in medmtl.__all__


@pytest.mark.parametrize("name", ["transforms", "callbacks"])
def test_a_training_takes_no_code_of_its_user_yet(name: str, tmp_path: Path) -> None:
    with pytest.raises(medmtl.MedmtlError, match=rf"^train\(\.\.\., {name}=\) is not in this version"):
        medmtl.train("none.yaml", tmp_path / "run", **{name: []})


@pytest.mark.parametrize("name", [name for name in medmtl.__all__ if callable(getattr(medmtl, name))])
def test_every_public_call_is_documented(name: str) -> None:
    assert len(inspect.getdoc(getattr(medmtl, name)) or "") > 10


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, medmtl; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("use", [medmtl.check, medmtl.plan, lambda config: medmtl.train(config, "nowhere")])
def test_a_configuration_that_is_no_file_is_refused_in_words(use: Callable[[Any], object]) -> None:
    with pytest.raises(InputError, match="given by the path of its file, found a dict"):
        use({"schema": 1})


@pytest.mark.parametrize("name", ["cases", "seed", "channels"])
def test_numbers_of_a_synthetic_cohort_are_numbers(name: str, tmp_path: Path) -> None:
    arguments: Any = {name: "20"}
    with pytest.raises(InputError, match=f"{name} must be a whole number, found '20'"):
        medmtl.synth(tmp_path / "new", **arguments)


class NoTask:
    kind = "bad"


@pytest.mark.parametrize("given", [NoTask, Task, "segmentation", None])
def test_only_a_task_with_a_name_can_be_registered(given: Any) -> None:
    before = medmtl.kinds()
    with pytest.raises(InputError, match="a task kind is a subclass of medmtl"):
        medmtl.register(given)
    assert medmtl.kinds() == before
