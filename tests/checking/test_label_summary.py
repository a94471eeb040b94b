"""What the check shows of the label columns, so that a slip in their coding is seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from medmtl import api, tasks
from medmtl.checking import labels_in_words
from medmtl.tasks.survival.outcome import Outcome
from tests.checking.cohort_folder import Folder, mask
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
            "6 labelled, low: 3, mid: 1, high: 2, none: 0",
        ),
        (
            {"kind": "ordinal", "column": "x", "grades": ["low", "mid", "high"]},
            GRADES,
            "6 labelled, low: 3, mid: 1, high: 2",
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
    assert list(report.labels) == ["lesion", "malignancy", "risk"]
    assert report.labels["risk"].endswith(" points (range 0 to 100)")
    assert re.fullmatch(r"\d+ masks, lesion in \d+", report.labels["lesion"])
    number, _, _ = report.labels["lesion"].partition(",")
    assert api.check_report(tiny_cohort, headers=True).labels == {**report.labels, "lesion": number}
    refused = api.check_report(tiny_cohort, overrides={"tasks.malignancy.classes": ["benign", "other"]})
    assert refused.expectations == ()
    assert refused.labels["risk"] == report.labels["risk"]


def labels_of(folder: Folder, *, headers: bool = False) -> dict[str, str]:
    folder.write()
    return dict(api.check_report(folder.path / "config.yaml", headers=headers).labels)


def test_masks_say_which_labels_were_drawn(folder: Folder) -> None:
    for case in (1, 2, 5):
        folder.save(f"organ_{case}", mask(1, 1, place=case))
    folder.rows[7]["organ"] = ""
    assert labels_of(folder)["organ"] == "7 masks, rim in 7, core in 4"
    assert labels_of(folder, headers=True)["organ"] == "7 masks"
    folder.rows = folder.rows[:4]
    assert labels_of(folder)["organ"] == "4 masks", "as of other labels, of a few their number is told"


def test_a_label_is_counted_among_the_masks_that_were_annotated_for_it_and_read(folder: Folder) -> None:
    folder.config = folder.config.replace("labels: {rim: 1, core: 2}", "labels: {rim: 1, core: 2}, annotated: drawn")
    for row, drawn in zip(folder.rows, ["rim", "rim", "", "", "", "", "", ""], strict=True):
        row["drawn"] = drawn
    for case in (0, 1):
        folder.save(f"organ_{case}", mask(1, 1, place=case))
    assert labels_of(folder)["organ"] == "8 masks, rim in 8, core in 6 of 6"
    (folder.path / "t1_7.nii.gz").write_bytes(b"torn")
    assert labels_of(folder)["organ"] == "8 masks, rim in 7 of 7, core in 5 of 5"


def test_lesions_are_counted_with_the_cases_that_have_some(folder: Folder) -> None:
    folder.config = folder.config.replace(
        "segmentation, column: organ, labels: {rim: 1, core: 2}", "detection, column: organ"
    )
    folder.save("organ_3", mask(0))
    assert labels_of(folder)["organ"] == "8 labelled, 14 boxes in 7 cases"
    assert labels_of(folder, headers=True)["organ"] == "8 labelled"


def test_maps_are_counted(folder: Folder) -> None:
    folder.config = folder.config.replace(
        "segmentation, column: organ, labels: {rim: 1, core: 2}", "voxel_regression, column: t2"
    )
    folder.config = folder.config.replace("t1: t1, t2: t2", "t1: t1")
    assert labels_of(folder)["organ"] == "8 maps"
