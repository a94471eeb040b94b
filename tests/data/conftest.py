from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cohort's folder with three images and two labels."""
    for name in ("images/a", "images/b", "images/c", "labels/a", "labels/b"):
        file = tmp_path / "cohort" / f"{name}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "cohort"
