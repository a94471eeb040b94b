"""Rows of the report: verdicts on case heads, of which the newest counts."""

from __future__ import annotations

from typing import Any, cast

import pytest

from medmtl.evaluation.report import _alerts
from medmtl.evaluation.tables import collapse_table
from medmtl.run_folder import RunFolder


class Run:
    """A run that is nothing but a fold and a log of verdicts on one head."""

    def __init__(self, verdicts: dict[int, str]) -> None:
        figures = {"task": "grade", "spread": 0.01, "probe_r2": 0.5}
        self.log = [
            {"step": step, "collapse": {**figures, "verdict": word, "sentence": f"{word} at {step}"}}
            for step, word in verdicts.items()
        ]

    def load_manifest(self) -> dict[str, Any]:
        return {"fold": 2}

    def read_log(self) -> list[dict[str, Any]]:
        return [{"step": 1, "losses": {}}, *self.log]


@pytest.mark.parametrize(
    ("verdicts", "alerts"),
    [
        ({20: "collapsed", 60: "trained"}, []),
        ({20: "trained", 60: "collapsed"}, ["grade, fold 2: collapsed at 60"]),
        ({20: "collapsed"}, ["grade, fold 2: collapsed at 20"]),
        ({20: "undecided"}, []),
        ({20: "undecided", 60: "no signal found"}, ["grade, fold 2: no signal found at 60"]),
    ],
)
def test_every_verdict_is_a_row_and_the_newest_is_what_the_page_warns_of(
    verdicts: dict[int, str], alerts: list[str]
) -> None:
    table = collapse_table([cast("RunFolder", Run(verdicts))])
    assert [row[:4] for row in table.rows] == [("2", "grade", word, str(step)) for step, word in verdicts.items()]
    assert len(table.columns) == len(table.rows[0])
    assert set(table.numeric) == {"after step", "spread of predictions", "R² of a linear probe"}
    assert _alerts(table) == alerts
