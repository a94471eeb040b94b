from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from medmtl import api
from medmtl.cli import main

TINY = {"plan.width": 4, "plan.max_width": 8, "plan.batch": 2, "plan.workers": 0, "training.steps": 2}


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo of 12 cases and two steps, and what it said. Read only."""
    place = tmp_path_factory.mktemp("demo") / "it's here"
    said = place.parent / "said.txt"
    with pytest.MonkeyPatch.context() as patch, said.open("w") as file:
        patch.setattr(api, "DEMO_CASES", 12)
        patch.setattr(api, "train", partial(api.train, overrides=TINY))
        patch.setattr(sys, "stdout", file)
        assert main(["demo", "--out", str(place), "--quiet"]) == 0
    return place, said.read_text()
