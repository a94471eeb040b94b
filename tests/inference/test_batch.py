from __future__ import annotations

import csv
import errno
import gzip
import os
import shutil
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medmtl import api, loaded
from medmtl.cli import main
from medmtl.data import formats
from medmtl.data.case import Case
from medmtl.errors import InputError, MachineError, NumericError, WorkError
from medmtl.inference import batch
from medmtl.inference.case_prediction import CasePrediction
from medmtl.inference.predict import Predictor, ReadCase


@pytest.fixture
def images(tiny_cohort: Path, tmp_path: Path) -> list[Path]:
    """Two scans in a folder of their own."""
    sources = [tiny_cohort.parent / "images" / f"case_00{number}.nii.gz" for number in (0, 1)]
    return [Path(shutil.copy(source, tmp_path / source.name)) for source in sources]


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def read(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_bad_case_of_a_batch_is_named_and_the_rest_is_kept(
    images: list[Path], trained_run: Path, tmp_path: Path
) -> None:
    images[1].write_bytes(images[1].read_bytes()[:-200])
    third = Path(shutil.copy(images[0], tmp_path / "third.nii.gz"))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"1 of 3 cases were not predicted.*case_001") as raised:
        api.predict(trained_run, [*images, third], out, device="cpu")
    assert raised.value.exit_code == 2
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == ["case_000", "third"]
    assert all((out / row["lesion_file"]).is_file() for row in rows)
    assert len(list((out / "masks" / "lesion").iterdir())) == 2


@pytest.mark.covers("B032", "B036")
def test_an_absent_file_of_several_does_not_cost_the_others(
    images: list[Path], trained_run: Path, tmp_path: Path
) -> None:
    (folder := tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError, match="2 of 4 cases were not predicted") as raised:
        api.predict(trained_run, ["absent.nii.gz", images[0], folder, images[1]], tmp_path / "out", device="cpu")
    assert raised.value.exit_code == 2
    assert all(words in str(raised.value) for words in ("absent: [B032] ", "folder: [B036] "))
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["case_000", "case_001"]
    with pytest.raises(InputError, match=r"^absent\.nii\.gz is no file$"):
        api.predict(trained_run, ["absent.nii.gz"], tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()


@pytest.mark.covers("B041")
def test_a_name_that_is_too_long_does_not_cost_the_others(
    images: list[Path], trained_run: Path, tmp_path: Path
) -> None:
    long = "n" * 300
    with pytest.raises(InputError, match=rf"1 of 2 cases were not predicted.*{long}: \[B041\] {long}") as raised:
        api.predict(trained_run, [f"{long}.nii.gz", images[1]], tmp_path / "out", device="cpu")
    assert raised.value.exit_code == 2
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["case_001"]
    for given in (f"{long}.nii.gz", f"image={long}.nii.gz"):
        with pytest.raises(InputError, match=r"^n+\.nii\.gz is no file$"):
            api.predict(trained_run, [given], tmp_path / "none", device="cpu")


@pytest.mark.covers("B032", "B017", "B008")
def test_bad_rows_of_a_table_are_told_and_the_rest_is_kept(
    images: list[Path], trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ("case_id", "image"),
        ("a", images[0].name),
        ("b", "absent.nii.gz"),
        ("a", images[1].name),
        ("too", "many", "cells"),
        ("c", images[1].name),
    ]
    table = write_rows(tmp_path / "new.csv", rows)
    before = table.read_bytes()
    out = tmp_path / "out"
    assert main(["predict", str(trained_run), str(table), "--out", str(out), "--device", "cpu", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "3 of 5 cases were not predicted, the others are in" in err
    assert all(words in err for words in ("[B032] row 3, case b", "[B017] row 4, case a", "[B008] row 5"))
    assert [row["case_id"] for row in read(out / "predictions.csv")] == ["a", "c"]
    assert sorted(path.name for path in (out / "masks" / "lesion").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert table.read_bytes() == before


def test_where_nothing_can_be_predicted_there_is_no_table(
    images: list[Path], trained_run: Path, tmp_path: Path
) -> None:
    table = write_rows(tmp_path / "new.csv", [("case_id", "image"), ("a", "absent.nii.gz")])
    with pytest.raises(InputError, match="1 of 1 cases were not predicted, and no table was written"):
        api.predict(trained_run, [table], tmp_path / "out", device="cpu")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.covers("B054", "B065", "B073")
def test_what_is_odd_about_files_is_told_once_per_rule(
    images: list[Path], trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = [gzip.decompress(path.read_bytes()) for path in images]
    for path, content in zip(images, whole, strict=True):
        path.write_bytes(gzip.compress(content) + b"behind")
    header = bytearray(whole[0])
    struct.pack_into("<h", header, 40, 4)  # dim[0]
    struct.pack_into("<h", header, 72, 8)  # bitpix
    (odd := tmp_path / "odd.nii").write_bytes(header)
    api.predict(trained_run, [*images, odd], tmp_path / "out", device="cpu")
    said = [record.getMessage() for record in caplog.records if "read all the same" in record.getMessage()]
    what = "cases have a file that is not quite in order and was read all the same"
    assert said[0] == (f"[B054] 2 of 3 {what}: case_000 (6 bytes after the image); case_001 (6 bytes after the image)")
    assert sorted(line.partition(":")[0] for line in said[1:]) == [f"[B065] 1 of 3 {what}", f"[B073] 1 of 3 {what}"]
    assert len(read(tmp_path / "out" / "predictions.csv")) == 3


def unread(cases: Sequence[Path], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the system does not open any more."""

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path in cases:
            raise OSError(number, os.strerror(number), str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(formats, "open", refuse, raising=False)


@pytest.mark.covers("F27", "F31")
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
def test_a_scan_that_the_system_does_not_read_does_not_cost_the_others(
    number: int,
    images: list[Path],
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [("a", images[0].name), ("b", "absent.nii.gz"), ("c", images[1].name)]
    table = write_rows(tmp_path / "new.csv", [("case_id", "image"), *rows])
    unread(images[:1], number, monkeypatch)
    out = tmp_path / "out"
    assert main(["predict", str(trained_run), str(table), "--out", str(out), "--device", "cpu", "--quiet"]) == 8
    told = f"case 'a' (row 2): reading failed: {os.strerror(number)}: {images[0]}"
    said = capsys.readouterr().err
    assert f"error: 2 of 3 cases were not predicted, the others are in {out / 'predictions.csv'}; {told}" in said
    assert "[B032] row 3, case b" in said
    assert [row["case_id"] for row in read(out / "predictions.csv")] == ["c"]


@pytest.mark.covers("F41")
def test_after_three_scans_in_a_row_that_are_not_read_no_other_is_tried(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "c", "d", "e", "f", "g"]
    paths = [Path(shutil.copy(images[0], tmp_path / f"{name}.nii.gz")) for name in names]
    failing = [paths[number] for number in (0, 1, 3, 4, 5)]
    unread(failing, errno.EIO, monkeypatch)
    with pytest.raises(WorkError, match=r"; 1 of them were not tried, because 3 in a row could not be read$") as raised:
        api.predict(trained_run, paths, tmp_path / "out", device="cpu")
    assert str(raised.value).startswith("6 of 7 cases were not predicted, the others are in ")
    assert str(raised.value).count("reading failed: Input/output error") == 5
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["c"]
    with pytest.raises(WorkError, match=r"^3 of 3 cases were not predicted, and no table was written") as raised:
        api.predict(trained_run, failing[2:], tmp_path / "none", device="cpu")
    assert "not tried" not in str(raised.value)


def broken_for(name: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Predictor.answer

    def answer(self: Predictor, read: ReadCase) -> CasePrediction:
        if read.case.case_id == name:
            raise error
        return whole(self, read)

    monkeypatch.setattr(Predictor, "answer", answer)


def test_an_answer_that_is_not_finite_does_not_cost_the_others(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_for("case_000", NumericError("case 'case_000': not finite"), monkeypatch)
    with pytest.raises(NumericError, match="1 of 2 cases were not predicted") as raised:
        api.predict(trained_run, images, tmp_path / "out", device="cpu")
    assert raised.value.exit_code == 4
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["case_001"]
    images[1].write_bytes(b"no image")
    with pytest.raises(InputError, match="2 of 2 cases"):
        api.predict(trained_run, images, tmp_path / "out", device="cpu")


OUT_OF_MEMORY = {
    "numpy's": MemoryError("Unable to allocate 9.31 TiB for an array"),
    "torch's": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
}


@pytest.mark.parametrize("whose", OUT_OF_MEMORY)
@pytest.mark.parametrize("place", ["read", "answer", "write"])
def test_a_case_that_the_memory_does_not_hold_is_named_and_the_rest_is_kept(
    place: str, whose: str, images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = Path(shutil.copy(images[0], tmp_path / "third.nii.gz"))
    owner, name = (batch, "write_answers") if place == "write" else (Predictor, place)
    whole = getattr(owner, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        held = arguments[0 if place == "write" else 1]
        if (held.case if place == "answer" else held).case_id == "case_001":
            raise OUT_OF_MEMORY[whose]
        return whole(*arguments, **options)

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(MachineError, match=r"1 of 3 cases were not predicted.*; case_001: out of memory \(") as raised:
        api.predict(trained_run, [*images, third], tmp_path / "out", device="cpu")
    assert raised.value.exit_code == 3
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["case_000", "third"]
    images[0].write_bytes(b"no image")
    with pytest.raises(InputError, match="2 of 3 cases"):
        api.predict(trained_run, [*images, third], tmp_path / "out", device="cpu")


def test_another_error_of_a_case_ends_the_work_as_what_it_is(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_for("case_000", RuntimeError("a bug"), monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        api.predict(trained_run, images, tmp_path / "out", device="cpu")


def test_what_was_predicted_before_a_stop_is_in_the_table(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_for("case_001", KeyboardInterrupt(), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        api.predict(trained_run, images, tmp_path / "out", device="cpu")
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["case_000"]


def test_a_disk_that_fails_ends_the_work_and_the_table_tells_what_was_written(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = batch.write_answers

    def fail(prediction: CasePrediction, out: Path) -> None:
        if prediction.case_id == "case_001":
            raise OSError(errno.ENOSPC, "no space", str(out))
        written(prediction, out)

    monkeypatch.setattr(batch, "write_answers", fail)
    third = Path(shutil.copy(images[0], tmp_path / "third.nii.gz"))
    with pytest.raises(OSError, match="no space"):
        api.predict(trained_run, [*images, third], tmp_path / "out", device="cpu")
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["case_000"]


@pytest.mark.covers("B042")
def test_a_kill_leaves_no_row_beside_the_mask_of_another_model(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    written = batch.write_answers

    def write(prediction: CasePrediction, out: Path) -> None:
        written(prediction, out)
        # what a process that is killed here leaves behind
        shutil.copytree(out, tmp_path / f"killed_{prediction.case_id}_{len(list(tmp_path.glob('killed*')))}")

    monkeypatch.setattr(batch, "write_answers", write)
    for _ in range(2):
        api.predict(trained_run, images, out, device="cpu")
    killed = sorted(tmp_path.glob("killed*"))
    assert len(killed) == 4
    assert [read(place / "predictions.csv") for place in killed] == [[], [], [], []]
    monkeypatch.undo()
    api.predict(trained_run, images, tmp_path / "killed_case_000_0", device="cpu")
    assert len(read(tmp_path / "killed_case_000_0" / "predictions.csv")) == 2


@pytest.mark.covers("B039")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_is_written_escaped(images: list[Path], trained_run: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\xfe.nii.gz")
    shutil.copy(images[0], odd)
    first, second = read(api.predict(trained_run, [odd, images[1]], tmp_path / "out", device="cpu"))
    assert (first["case_id"], second["case_id"]) == (r"\udcff\udcfe", "case_001")
    assert (tmp_path / "out" / first["lesion_file"]).is_file()


def test_a_saved_prediction_is_never_beside_the_row_of_another(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = api.load(trained_run, device="cpu").predict({"image": images[0]}, case_id="someone")
    found.save(tmp_path / "out")

    def fail(prediction: CasePrediction, out: Path) -> None:
        raise OSError(errno.ENOSPC, "no space", str(out))

    monkeypatch.setattr(loaded, "write_answers", fail)
    with pytest.raises(OSError, match="no space"):
        found.save(tmp_path / "out")
    assert read(tmp_path / "out" / "predictions.csv") == []


def test_a_case_is_read_while_the_one_before_it_is_looked_at(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, reading = Predictor.answer, Predictor.read
    second_read, first_written = threading.Event(), threading.Event()
    written = batch.write_answers

    def read_case(self: Predictor, case: Case, **options: Any) -> ReadCase:
        found = reading(self, case, **options)
        if case.case_id == "case_001":
            second_read.set()
        return found

    def answer(self: Predictor, read: ReadCase) -> CasePrediction:
        assert (second_read if read.case.case_id == "case_000" else first_written).wait(60)
        return whole(self, read)

    def write(prediction: CasePrediction, out: Path) -> None:
        written(prediction, out)
        first_written.set()

    monkeypatch.setattr(Predictor, "read", read_case)
    monkeypatch.setattr(Predictor, "answer", answer)
    monkeypatch.setattr(batch, "write_answers", write)
    api.predict(trained_run, images, tmp_path / "out", device="cpu")
    assert len(read(tmp_path / "out" / "predictions.csv")) == 2


@pytest.mark.covers("B042")
def test_predictions_of_another_model_are_replaced_and_the_row_names_the_model(
    images: list[Path], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    api.predict(trained_run, images, out, device="cpu")
    loaded: Any = Predictor.__init__

    def other(self: Predictor, *arguments: Any, **options: Any) -> None:
        loaded(self, *arguments, **options)
        self.model_sha256 = "0" * 64

    monkeypatch.setattr(Predictor, "__init__", other)
    (row,) = read(api.predict(trained_run, images[:1], out, device="cpu"))
    assert row["model_sha256"] == "0" * 64
    # masks of cases that were not predicted again stay; the table does not list them
    assert len(list((out / "masks" / "lesion").iterdir())) == 2


@pytest.mark.covers("B042")
def test_a_folder_of_somebodys_masks_is_not_written_into(images: list[Path], trained_run: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "masks" / "lesion" / "case_000.nii.gz"
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(InputError, match=r"\[B042\].*holds masks/ but no predictions\.csv") as raised:
        api.predict(trained_run, images, tmp_path, device="cpu")
    assert raised.value.exit_code == 2
    assert drawn.read_bytes() == b"drawn by hand"
    with pytest.raises(InputError, match="B042"):
        api.load(trained_run, device="cpu").predict({"image": images[0]}).save(tmp_path)
