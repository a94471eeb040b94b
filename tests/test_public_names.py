from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import medmtl
from medmtl import api
from medmtl.errors import LATER


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
