from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.checking.cohort_folder import Folder


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("sound")).path


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Folder:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    return Folder(tmp_path, made=True)
