"""Scans that cannot be read, that changed, or that are too large for the memory; and a cache whose disk fails."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl import api
from medmtl.cli import main
from medmtl.data import cache as cache_module
from medmtl.data import formats
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.formats.nifti import write_mask
from medmtl.data.preparation import prepare_case
from medmtl.data.prepared import Preparation, Prepared
from medmtl.data.volume import Grid
from medmtl.errors import InputError, WorkError
from medmtl.run_folder import RunFolder
from tests.conftest import TINY
from tests.faults.disk import Worker

covers = pytest.mark.covers
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("worker"))
    yield made
    made.close()


def scan(path: Path, side: int = 8) -> Path:
    ramp = np.arange(side**3, dtype=np.int32).reshape((side,) * 3)
    write_mask(path, ramp % 1000, Grid((side, side, side), np.eye(4)))
    return path


@covers("F27")
@pytest.mark.parametrize("when", ["1", "2"])
def test_a_scan_that_cannot_be_read_is_named_with_the_true_cause(worker: Worker, tmp_path: Path, when: str) -> None:
    # the first read hashes the file for its name in the cache, a later one is the image reader's
    image = scan(tmp_path / "scan.nii")
    with worker.traced("read", f"read:error=EIO:when={when}+", path=image):
        failed = worker.run(f"cache({str(tmp_path / 'c')!r}).get(case({str(image)!r}))")
    assert failed.error == "WorkError"
    assert os.strerror(errno.EIO) in failed.message
    assert "scan.nii" in failed.message
    assert not (tmp_path / "c").exists() or not os.listdir(tmp_path / "c")


@covers("F31")
def test_too_many_open_files_names_the_limit(worker: Worker, tmp_path: Path) -> None:
    image = scan(tmp_path / "scan.nii.gz")
    with worker.limited(resource.RLIMIT_NOFILE, 3):
        failed = worker.run(f"cache({str(tmp_path / 'c')!r}).get(case({str(image)!r}))")
    assert failed.error == "WorkError"
    assert "Too many open files" in failed.message
    assert "this process may have 3 files open: raise ulimit -n" in failed.message


def failing(refused: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not opened any more."""

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == refused:
            raise OSError(number, os.strerror(number), str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(formats, "open", refuse, raising=False)


@covers("F27", "F31")
@pytest.mark.parametrize("option", ["--quiet", "--headers"])
@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EIO, "the disk fails: check it"),
        (errno.ESTALE, "mount the network drive anew"),
        (errno.ETIMEDOUT, "the network drive does not answer"),
        (errno.EMFILE, "this process may have "),
    ],
)
def test_a_check_that_cannot_read_names_case_row_path_and_cause(
    option: str, part: str, number: int, told: str, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    path = tiny_cohort.parent / part / "case_003.nii.gz"
    failing(path, number, monkeypatch)
    assert main(["check", str(tiny_cohort), option]) == 8
    said = capsys.readouterr().err
    assert f"error: case 'case_003' (row 5): reading failed: {os.strerror(number)}: {path}; {told}" in said


@covers("F27")
def test_an_evaluation_that_cannot_read_names_case_row_path_and_cause(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    case_id = RunFolder.open(trained_run).load_splits().folds[0].val[0]
    path = tiny_cohort.parent / "images" / f"{case_id}.nii.gz"
    failing(path, errno.EIO, monkeypatch)
    words = ["evaluate", str(trained_run), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main(words) == 8
    row = int(case_id.removeprefix("case_")) + 2
    said = f"error: case {case_id!r} (row {row}): reading failed: Input/output error: {path}; the disk fails"
    assert said in capsys.readouterr().err


@covers("F32")
def test_a_scan_that_does_not_fit_the_memory_names_its_row_and_the_bytes(worker: Worker, tmp_path: Path) -> None:
    image, small = scan(tmp_path / "scan.nii", side=200), scan(tmp_path / "small.nii")
    # once, so that what libraries load at their first use is there
    assert worker.run(f"cache({str(tmp_path / 'c')!r}).get(case({str(small)!r}))").error is None
    with worker.limited(resource.RLIMIT_AS, worker.memory_in_use() + 24_000_000):
        failed = worker.run(f"cache({str(tmp_path / 'c')!r}).get(case({str(image)!r}))")
    assert failed.error == "MachineError", failed
    assert "case 'c1' could not be prepared (row 7): out of memory (" in failed.message
    assert "MiB" in failed.message or "bytes" in failed.message
    assert worker.run(f"cache({str(tmp_path / 'c')!r}).get(case({str(image)!r}))").error is None


@covers("F18", "F20")
@pytest.mark.parametrize("options", ["size=64k", "size=1m,nr_inodes=4"])
def test_a_full_cache_is_done_without_and_said_once(worker: Worker, tmp_path: Path, options: str) -> None:
    image = scan(tmp_path / "scan.nii.gz", side=32)
    before = worker.log.stat().st_size
    with worker.small_disk(tmp_path / "disk", options) as seen:
        folder = str(tmp_path / "disk" / "cache")
        code = f"c = cache({folder!r}); c.ensure([case({str(image)!r})], 1); p = c.get(case({str(image)!r}))"
        answer = worker.run(f"{code}; result = [float(p.image_CDHW.max()), list(p.image_CDHW.shape)]")
        assert not [name for name in os.listdir(seen / "cache") if (seen / "cache").is_dir()]
    assert answer.result == [999.0, [1, 32, 32, 32]], answer
    said = worker.log.read_bytes()[before:].decode()
    assert said.count("the cache takes no more (No space left on device") == 1


@covers("F26", "F53")
def test_a_cache_write_that_lies_is_never_used(worker: Worker, tmp_path: Path) -> None:
    image = scan(tmp_path / "scan.nii.gz", side=8)
    with worker.traced("write", "write:retval=2176:when=1"):
        failed = worker.run(f"cache({str(tmp_path / 'c')!r}).get(case({str(image)!r}))")
    assert failed.error == "WorkError"
    assert "is damaged right after it was written" in failed.message
    code = f"p = cache({str(tmp_path / 'c')!r}).get(case({str(image)!r})); result = float(p.image_CDHW.max())"
    assert worker.run(code).result == 511.0


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case("c1", "p1", None, 7, {"t1": scan(tmp_path / "scan.nii.gz")})


PREPARATION = Preparation((1.0, 1.0, 1.0), ("t1",), {})


@covers("F39")
def test_a_scan_cut_while_it_is_read_is_no_bad_input(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(wanted: Case, preparation: Preparation) -> Prepared:
        os.truncate(case.images["t1"], 200)
        return prepare_case(wanted, preparation)

    monkeypatch.setattr(cache_module, "prepare_case", cut)
    with pytest.raises(WorkError, match=r"a file of case 'c1' changed while it was read.*scan\.nii\.gz"):
        PreparedCache(tmp_path / "cache", PREPARATION).get(case)
    assert WorkError.exit_code == 8


@covers("F41")
def test_scans_that_vanish_before_they_are_prepared_end_the_work(case: Case, tmp_path: Path) -> None:
    case.images["t1"].unlink()
    with pytest.raises(WorkError, match=r"No such file or directory: .*scan\.nii\.gz; put back what was moved"):
        PreparedCache(tmp_path / "cache", PREPARATION).get(case)


@covers("F41")
def test_a_checked_scan_that_vanishes_is_no_bad_input(case: Case) -> None:
    path = case.images["t1"]
    checked = replace(case, sha256={path: "0" * 64})
    path.unlink()
    with pytest.raises(WorkError, match=r"case 'c1': .*scan\.nii\.gz was there when .* checked and is gone"):
        prepare_case(checked, PREPARATION)
    with pytest.raises(InputError, match="B032"):
        prepare_case(case, PREPARATION)


@covers("F40", "B093")
def test_a_replaced_scan_is_refused_and_not_prepared_anew(case: Case, tmp_path: Path) -> None:
    path = case.images["t1"]
    cache = PreparedCache(tmp_path / "cache", PREPARATION)
    checked = replace(case, sha256={path: cache.get(case).sha256[str(path)]})
    before = sorted((tmp_path / "cache").iterdir())
    found = os.stat(path)
    scan(tmp_path / "other.nii.gz", side=9).replace(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    for use in (PreparedCache(tmp_path / "cache", PREPARATION).get, lambda given: prepare_case(given, PREPARATION)):
        with pytest.raises(InputError, match=r"^\[B093\] case 'c1' \(row 7\): scan\.nii\.gz is not the file"):
            use(checked)
    assert sorted((tmp_path / "cache").iterdir()) == before


def copied(run: Path, config: Path, folder: Path) -> tuple[Path, Path]:
    """The run and its cohort at another place, as they lie to each other; (run, configuration)."""
    base = Path(os.path.commonpath([run, config]))
    shutil.copytree(run, folder / run.relative_to(base))
    shutil.copytree(config.parent, folder / config.parent.relative_to(base))
    return folder / run.relative_to(base), folder / config.relative_to(base)


@covers("B093", "F40")
@pytest.mark.parametrize("part", ["images", "labels"])
def test_evaluation_and_resume_refuse_a_changed_file_by_name(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, part: str, capsys: Captured
) -> None:
    run, config = copied(trained_run, tiny_cohort, tmp_path)
    files = sorted((config.parent / part).iterdir())
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    for path in files:
        # other bytes of an equal volume: only the gzip header differs
        data = bytearray(path.read_bytes())
        data[9] ^= 1
        path.write_bytes(bytes(data))
    assert main(["evaluate", str(run), "--device", "cpu", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: [B093] case ")
    assert any(path.name in said for path in files)
    shutil.rmtree(run / "checkpoints" / "step-000006")
    assert main(["train", str(config), "--out", str(run), "--device", "cpu", "--resume", "--quiet", *settings]) == 2
    assert capsys.readouterr().err.startswith("error: [B093] case ")
    assert not (run / "checkpoints" / "step-000006").exists()


@covers("B093")
def test_a_moved_cohort_of_equal_bytes_is_the_same_one(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    run, _ = copied(trained_run, tiny_cohort, tmp_path)
    scores = api.evaluate(run, device="cpu")["val"]
    assert scores.metrics["cases"] > 0
