from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from medmtl.build import build_tasks
from medmtl.device import Device
from medmtl.errors import ArtefactError
from medmtl.planning import Plan, with_statistics
from tests.planning.cohorts import SMALL, configured, facts, fingerprint, planned, scan


class TestStorage:
    def test_a_plan_survives_the_file(self, small: Plan, tmp_path: Path) -> None:
        config = configured(tmp_path)
        plan = with_statistics(small, config, build_tasks(config), *facts(scan(), scan()))
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan

    @pytest.mark.parametrize("place", [(), ("network",), ("preparation",), ("intensities", 0)])
    def test_unknown_keys_are_refused(self, small: Plan, tmp_path: Path, place: tuple[Any, ...]) -> None:
        config = configured(tmp_path)
        plan = with_statistics(small, config, build_tasks(config), *facts(scan()))
        data = json.loads(json.dumps(plan.to_json()))
        section = data
        for key in place:
            section = section[key]
        section["colour"] = 1
        with pytest.raises(ArtefactError, match=r"plan\.json.*colour"):
            Plan.from_json(data)

    def test_a_missing_key_is_refused(self, small: Plan) -> None:
        data = json.loads(json.dumps(small.to_json()))
        del data["batch"]
        with pytest.raises(ArtefactError, match="batch"):
            Plan.from_json(data)


class TestLoaders:
    @pytest.mark.parametrize(
        ("kind", "cores", "workers"),
        [("cpu", 1, 0), ("cpu", 2, 0), ("cpu", 3, 1), ("cpu", 6, 3), ("cpu", 32, 4), ("cuda", 1, 1), ("cuda", 2, 1)],
    )
    def test_a_loader_process_takes_no_core_that_the_step_wants(
        self, tmp_path: Path, kind: Literal["cpu", "cuda"], cores: int, workers: int
    ) -> None:
        device = Device(kind, bf16=False, cores=cores)
        plan = planned(configured(tmp_path), *map(fingerprint, SMALL), device=device)
        assert plan.workers == workers

    def test_how_many_is_for_the_configuration_to_say(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path, plan__workers=1), *map(fingerprint, SMALL)).workers == 1
