"""What the check shows of the label columns, so that a slip in their coding is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from medmtl import api, tasks
from medmtl.checking import labels_in_words
from medmtl.tasks.survival.outcome import Outcome
from tests.kinds_fixture import Count, CountOptions

GRADES = ["low", "low", "high", "mid", "low", "high"]
FINDINGS = [(True, None), (True, False), (False, None), (True, True), (None, False), (False, False)]
TIMES = [(87, 1), (1897, 0), (400.5, 1), (12, 0), (1000, 1), (365, 0)]


def told(options: Mapping[str, Any], labels: Sequence[Any]) -> str:
    kind = tasks.kinds.get(options["kind"])
    task = kind("target", kind.Options.model_validate(options))
    return labels_in_words({"target": task}, {"target": {f"c{i}": label for i, label in enumerate(labels)}})["target"]


@pytest.mark.parametrize(
    ("options", "labels", "expected"),
    [
        (
            {"kind": "classification", "column": "x", "classes": ["low", "mid", "high", "none"]},
            GRADES,
            "6 labelled, low 3, mid 1, high 2, none 0",
        ),
        (
            {"kind": "ordinal", "column": "x", "grades": ["low", "mid", "high"]},
            GRADES,
            "6 labelled, low 3, mid 1, high 2",
        ),
        (
            {"kind": "multilabel", "findings": {"oedema": "a", "nodule": "b"}},
            FINDINGS,
            "6 labelled, oedema in 3 of 5, nodule in 1 of 4",
        ),
        (
            {"kind": "regression", "column": "x", "unit": "points", "range": [0, 100]},
            [0.88, 0.12, 0.3, 0.5, 0.6123456, 0.2],
            "6 labelled, 0.12 to 0.88, median 0.4 points (range 0 to 100)",
        ),
        ({"kind": "regression", "column": "x"}, [-3, 1234.567, 8.9, 1, 2, 4], "6 labelled, -3 to 1235, median 3"),
        (
            {"kind": "survival", "time": "days", "event": "died", "horizon": 1095},
            [Outcome(time, bool(event)) for time, event in TIMES],
            "6 labelled, 3 with the event (50 %), times 12 to 1897, horizon 1095",
        ),
    ],
)
def test_each_kind_says_what_its_labels_hold(options: Mapping[str, Any], labels: Sequence[Any], expected: str) -> None:
    assert told(options, labels) == expected
    assert told(options, labels[:4]) == "4 labelled", "a range of a few labels is nearly the labels themselves"
    assert told(options, []) == "0 labelled"


def test_a_kind_that_says_nothing_is_told_by_its_number() -> None:
    count = Count("nodules", CountOptions(kind="count", column="x"))
    assert labels_in_words({"nodules": count}, {"nodules": dict.fromkeys("abcdef", 1)}) == {"nodules": "6 labelled"}


def test_a_check_tells_it_also_of_headers_and_where_something_is_refused(tiny_cohort: Path) -> None:
    report = api.check_report(tiny_cohort)
    assert list(report.labels) == ["malignancy", "risk"], "masks have findings of their own"
    assert report.labels["risk"].endswith(" points (range 0 to 100)")
    assert api.check_report(tiny_cohort, headers=True).labels == report.labels
    refused = api.check_report(tiny_cohort, overrides={"tasks.malignancy.classes": ["benign", "other"]})
    assert refused.expectations == ()
    assert refused.labels["risk"] == report.labels["risk"]
