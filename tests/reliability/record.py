"""A pytest plugin: ``--reliability FILE.json`` records which tests show which rule, with what result.

``tests/conftest.py`` loads it; ``docs/make_reliability.py`` turns the records into ``docs/reliability.md``.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

RANK = {"passed": 0, "skipped": 1, "failed": 2}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE.json", help="record which tests show which rule")


def pytest_configure(config: pytest.Config) -> None:
    place = config.getoption("--reliability")
    if place is not None:
        config.pluginmanager.register(Recorder(Path(place)))


class Recorder:
    """Collects one record per rule and test, and writes them at the end of the session."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._records: dict[tuple[str, str], dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        for rule in sorted({rule for mark in item.iter_markers("covers") for rule in mark.args}):
            fresh = {"id": rule, "test": item.nodeid, "outcome": "passed", "seconds": 0.0, "reason": ""}
            record = self._records.setdefault((rule, item.nodeid), fresh)
            record["seconds"] = round(record["seconds"] + report.duration, 3)
            if RANK[report.outcome] > RANK[record["outcome"]]:
                record["outcome"] = report.outcome
            if report.skipped and isinstance(report.longrepr, tuple):
                record["reason"] = report.longrepr[2].removeprefix("Skipped: ")
        return report

    def pytest_sessionfinish(self) -> None:
        self._place.write_text(json.dumps(list(self._records.values()), indent=1) + "\n", encoding="utf-8")
