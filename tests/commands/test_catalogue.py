from __future__ import annotations

import json

import pytest

from medmtl import api
from medmtl.cli import main

Captured = pytest.CaptureFixture[str]


def test_kinds_are_listed_for_readers_and_for_programs(capsys: Captured) -> None:
    assert main(["kinds", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known == api.kinds()
    assert {"tasks", "sharing", "weighting"} <= known.keys()
    case_kinds = ["classification", "multilabel", "ordinal", "regression", "survival"]
    names = ["segmentation", *case_kinds, "voxel_regression", "detection"]
    assert [kind["name"] for kind in known["tasks"]] == names
    options = {option["name"]: option for option in known["tasks"][1]["options"]}
    assert options["classes"]["required"]
    assert options["class_weights"]["type"] == "none | balanced"
    assert all(option["help"] for family in known.values() for kind in family for option in kind["options"])
    assert main(["kinds"]) == 0
    assert "  segmentation: " in capsys.readouterr().out
