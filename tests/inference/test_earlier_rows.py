"""What a prediction says of rows that were in its table."""

from __future__ import annotations

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl import api
from medmtl.errors import BusyRunError, InputError
from medmtl.folder_lock import output_lock


def ids(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8") as file:
        return [row["case_id"] for row in csv.DictReader(file)]


def test_rows_of_cases_that_are_not_predicted_again_are_told_of(
    tiny_cohort: Path, trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, table = tiny_cohort.parent / "images" / "case_000.nii.gz", tmp_path / "out" / "predictions.csv"
    images = [Path(shutil.copy(source, tmp_path / f"{name}.nii.gz")) for name in ("a", "b", "=c")]

    def told(*given: Path) -> list[tuple[str, str]]:
        caplog.clear()
        assert len(ids(api.predict(trained_run, given, table.parent, device="cpu"))) == len(given)
        return [(r.levelname, r.getMessage()) for r in caplog.records if "earlier row" in r.getMessage()]

    more = "replaced; all cases can be given in one call, and then share the table"
    assert told(*images) == []
    assert told(*reversed(images)) == []
    assert told(images[2]) == [("WARNING", f"2 earlier rows of {table} were {more}")]
    assert told(images[0]) == [("WARNING", f"1 earlier row of {table} was {more}")]
    table.write_text("case_id" + "x" * 200_000)  # no table, by its longest cell
    assert told(images[0]) == []
    caplog.clear()
    for _ in range(2):
        api.load(trained_run, device="cpu").predict(images[1], case_id="b").save(table.parent)
    assert ids(table) == ["a", "b"] and "earlier row" not in caplog.text


@pytest.mark.covers("F50")
def test_one_process_writes_into_a_folder_at_a_time(tiny_cohort: Path, trained_run: Path, tmp_path: Path) -> None:
    image, out = tiny_cohort.parent / "images" / "case_000.nii.gz", tmp_path / "out"
    table = api.predict(trained_run, image, out, device="cpu")
    before = table.read_bytes()
    with output_lock(out, []), pytest.raises(BusyRunError, match=f"process {os.getpid()} on "):
        api.predict(trained_run, tiny_cohort.parent / "images" / "case_001.nii.gz", out, device="cpu")
    assert table.read_bytes() == before
    (scores := tmp_path / "scores").mkdir()
    with output_lock(scores, []), pytest.raises(BusyRunError):
        api.evaluate(trained_run, out=scores, device="cpu")
    assert list(scores.iterdir()) == []


def test_rows_that_are_saved_at_once_are_all_kept(tiny_cohort: Path, trained_run: Path, tmp_path: Path) -> None:
    found = api.load(trained_run, device="cpu").predict(tiny_cohort.parent / "images" / "case_000.nii.gz")
    saved = [replace(found, case_id=f"c{number}", named=True) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        (table,) = set(pool.map(lambda prediction: prediction.save(tmp_path / "out"), saved))
    assert sorted(ids(table)) == [prediction.case_id for prediction in saved]


@pytest.mark.covers("B042")
def test_somebody_s_table_of_that_name_is_not_written_over(
    tiny_cohort: Path, trained_run: Path, tmp_path: Path
) -> None:
    image, table = tiny_cohort.parent / "images" / "case_000.nii.gz", tmp_path / "predictions.csv"
    table.write_text("patient,months_of_reading\np1,3\n")
    for call in (
        lambda: api.predict(trained_run, image, tmp_path, device="cpu"),
        lambda: api.load(trained_run, device="cpu").predict(image, case_id="b").save(tmp_path),
    ):
        with pytest.raises(InputError, match="case_id is not its first column") as caught:
            call()
        assert caught.value.code == "B042"
    assert table.read_text().startswith("patient,") and [path.name for path in tmp_path.iterdir()] == [table.name]
