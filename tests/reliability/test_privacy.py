"""Promise 19: what may be shared holds no header text, no undeclared column, no path and no person."""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import base64
import csv
import gzip
import os
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.files import safe_name
from tests.reliability.outcome import experiment

FOLDER = "zq1folder"
COLUMN, CELL = "zq2column", "zq3cell"
TEXTS = {"descrip": b"zq4descrip", "aux_file": b"zq5aux", "intent_name": b"zq6intent", "db_name": b"zq7db"}
EXTENSION = b"zq8extension"
CASE, PERSON = "zq9case-{}", "zq0person-{}"
# a value of a target that nothing else could spell
VALUE = "{}.8675309"
HEADER_CANARIES = (*TEXTS.values(), EXTENSION)
CANARIES = (*HEADER_CANARIES, FOLDER.encode(), COLUMN.encode(), CELL.encode())
IDS = (b"zq9case", b"zq0person")
VALUES = (b"8675309",)
EMBEDDED = re.compile(rb"base64,([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class Made:
    """All that one experiment left, and all that it said."""

    out: Path
    said: bytes
    cases: int


def mark(path: Path) -> None:
    """Write a text of our own into every text field of a NIfTI file, and an extension."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = TEXTS[field]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", EXTENSION))
    path.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))


def identify(folder: Path) -> None:
    """Give every row ids, values and a column of our own."""
    table = folder / "cohort.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["case_id"], row["patient_id"] = CASE.format(number), PERSON.format(number)
        row["risk"] = VALUE.format(10 + number) if row["risk"] else ""
        row[COLUMN] = CELL
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def made(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("private")
    cohort = place / FOLDER
    shutil.copytree(tiny_cohort.parent, cohort)
    for path in cohort.rglob("*.nii.gz"):
        mark(path)
    identify(cohort)
    # the configuration lies elsewhere, so that its own path may be said
    text = (cohort / "config.yaml").read_text().replace("table: cohort.csv", f"table: {FOLDER}/cohort.csv")
    (place / "config.yaml").write_text(text)
    out = place / "out"
    out.mkdir()
    train, evaluate, _ = experiment(place / "config.yaml", out)
    predict = ["predict", str(out / "run"), "config.yaml", "--out", str(out / "prediction"), "--device", "cpu"]
    commands = [["check", "config.yaml"], ["plan", "config.yaml"], train, evaluate, predict]
    verbose = [[*words, "--verbose"] for words in commands]
    said = place / "said.txt"
    umask = os.umask(0)
    try:
        with pytest.MonkeyPatch.context() as patch, said.open("w", encoding="utf-8") as file:
            patch.chdir(place)
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            codes = [main(words) for words in verbose]
    finally:
        os.umask(umask)
    assert codes == [0] * len(verbose), said.read_text(encoding="utf-8")[-2000:]
    return Made(out, said.read_bytes(), len((cohort / "cohort.csv").read_text().splitlines()) - 1)


def opened(data: bytes) -> Iterator[bytes]:
    """Bytes as they lie, and what is packed in them: gzip streams, pictures of a page, texts of pictures."""
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    for found in EMBEDDED.finditer(data):
        yield from opened(base64.b64decode(found[1]))
    if data.startswith(b"\x89PNG"):
        for start in (match.start() + 4 for match in re.finditer(b"IDAT|zTXt|iTXt", data)):
            try:
                yield zlib.decompressobj().decompress(data[start:])
            except zlib.error:
                continue


def holds(data: bytes, texts: tuple[bytes, ...]) -> list[bytes]:
    return [text for text in texts for part in opened(data) if text.lower() in part.lower()]


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def private(name: str) -> bool:
    return name.startswith(("evaluation/", "manifest.json", "findings.json"))


@pytest.mark.covers("P19", "B091")
def test_no_file_at_all_holds_header_text_or_a_column_that_nobody_declared(made: Made) -> None:
    canaries = (*HEADER_CANARIES, COLUMN.encode(), CELL.encode())
    found = {name: held for name, path in files_of(made.out).items() if (held := holds(path.read_bytes(), canaries))}
    assert found == {}
    assert any(name.startswith("prediction/masks/") for name in files_of(made.out))
    assert any(name.startswith(".medmtl-cache/") for name in files_of(made.out))


@pytest.mark.covers("P19")
def test_what_is_said_holds_no_canary_no_value_and_no_path(made: Made) -> None:
    assert b"check 12/12" in made.said and b"dice" in made.said
    assert holds(made.said, (*CANARIES, *VALUES)) == []


@pytest.mark.covers("P19")
def test_files_that_are_not_private_hold_no_path_and_no_value(made: Made) -> None:
    run_files = {name: path for name, path in files_of(made.out / "run").items() if not private(name)}
    assert {"log.jsonl", "checkpoints/last", "splits.json", "plan.json"} < run_files.keys()
    for name, path in run_files.items():
        # the configuration has to name the table; a plan holds quantiles of the targets
        forbidden = CANARIES if name != "config.yaml" else tuple(c for c in CANARIES if c != FOLDER.encode())
        forbidden += () if name == "plan.json" else VALUES
        assert holds(path.read_bytes(), forbidden) == [], name
    assert holds((made.out / "run/evaluation/val/metrics.json").read_bytes(), (*CANARIES, *IDS, *VALUES)) == []
    assert holds((made.out / "prediction/predictions.csv").read_bytes(), (*CANARIES, *VALUES, b"zq0person")) == []


@pytest.mark.covers("P19")
def test_model_log_and_plan_hold_no_ids(made: Made) -> None:
    for name, path in files_of(made.out / "run").items():
        if name.startswith(("checkpoints/", "log.jsonl", "plan.json", "config.yaml")):
            assert holds(path.read_bytes(), IDS) == [], name


@pytest.mark.covers("P19")
def test_the_shared_page_holds_nothing_of_a_person(made: Made) -> None:
    own = (made.out / "run/evaluation/val/report.html").read_bytes()
    assert holds(own, IDS), "the page that is not shared shows ids; else this test proves little"
    copy = made.out.parent / "copy"
    shutil.copytree(made.out / "run", copy / "run")
    page = api.report(copy / "run", share=True).read_bytes()
    assert holds(page, (*CANARIES, *IDS, *VALUES)) == []


@pytest.mark.covers("P19", "B169")
def test_private_files_are_the_owners_alone_whatever_the_umask(made: Made) -> None:
    for name in ("run", "prediction", ".medmtl-cache"):
        top = made.out / name
        for path in (top, *top.rglob("*")):
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == expected, path.relative_to(made.out)


def test_case_ids_are_what_the_private_files_are_for(made: Made) -> None:
    names = {path.name for path in (made.out / "prediction/masks/lesion").iterdir()}
    assert len(names) == made.cases
    assert f"{safe_name(CASE.format(0))}.nii.gz" in names
    assert holds((made.out / "run/evaluation/val/cases.csv").read_bytes(), (b"zq9case",))
