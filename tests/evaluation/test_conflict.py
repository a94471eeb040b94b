from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medmtl.evaluation.conflict import conflict_pictures
from medmtl.evaluation.pictures import ON_WHITE
from medmtl.evaluation.report import write_report
from tests.evaluation.scored_run import make_run, make_scores
from tests.evaluation.test_report import Rows


def record(step: int, norms: dict[str, float | None], cosines: dict[str, float | None]) -> dict[str, Any]:
    return {"step": step, "conflict": {"tasks": list(norms), "norms": norms, "cosines": cosines}}


def test_a_run_that_measured_nothing_has_no_pictures() -> None:
    assert conflict_pictures([{"step": 1, "losses": {"a": 1.0}}]) == []


def test_pairs_and_tasks_are_named_and_the_bytes_are_always_the_same() -> None:
    records = [
        {"step": 2, "losses": {"a": 1.0}},
        record(2, {"a": 1.0, "b": 0.0}, {"a|b": None}),
        record(4, {"a": 1.0, "b": 2.0, "c": 3.0}, {"a|b": -0.5, "a|c": 0.1, "b|c": 1.0}),
        record(6, {"a": 1.0, "b": 1.0}, {"a|b": 0.5}),
    ]
    cosines, norms = conflict_pictures(records)
    assert [name for name, *_ in cosines.legend] == ["a and b", "a and c", "b and c"]
    assert [name for name, *_ in norms.legend] == ["a", "b", "c"]
    assert conflict_pictures(records) == [cosines, norms]
    records[-1]["conflict"]["cosines"]["a|b"] = -0.5
    assert conflict_pictures(records)[0] != cosines


def test_one_task_alone_has_a_norm_and_no_cosine() -> None:
    (norms,) = conflict_pictures([record(2, {"a": 1.0}, {})])
    assert norms.caption.startswith("Norm")


def test_each_picture_has_no_more_lines_than_colours() -> None:
    names = "abcdefg"
    pairs = {f"{one}|{other}": 0.1 for one in names for other in names if one < other}
    pictures = conflict_pictures([record(2, dict.fromkeys(names, 1.0), dict(pairs))])
    assert [len(picture.legend) for picture in pictures] == [6, 6, 6, 3, 6, 1]
    assert all(len({colour for _, colour, _ in picture.legend}) == len(picture.legend) for picture in pictures)
    assert len(ON_WHITE) == 6


def test_the_page_shows_conflicts_where_they_were_measured(tmp_path: Path) -> None:
    heading = "Do the tasks pull the same way?"
    scores, run = make_scores(tmp_path), make_run(tmp_path)
    page = write_report(scores, [run]).read_text(encoding="utf-8")
    assert heading not in page
    with run.log_file.open("a", encoding="utf-8") as file:
        for step in (50, 100):
            file.write(json.dumps(record(step, {"lesion": 0.3, "size": None}, {"lesion|size": -0.2})) + "\n")
    again = write_report(scores, [run]).read_text(encoding="utf-8")
    assert again.count(heading) == 1
    assert len(Rows(again).pictures) == len(Rows(page).pictures) + 2
    assert "lesion and size" in again
