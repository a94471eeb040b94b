from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pytest

from medmtl.data import cache as cache_module
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.preparation import prepare_case
from medmtl.data.prepared import Preparation, Prepared
from medmtl.data.volume import Grid
from medmtl.errors import ArtefactError, MachineError, WorkError

PREPARATION = Preparation((1.0, 1.0, 1.5), ("t1",), {"organ": "mask"})


def make_case(folder: Path, number: int = 0, labelled: bool = True) -> Case:
    rng = np.random.default_rng(number)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    image, mask = folder / f"image-{number}.nii.gz", folder / f"mask-{number}.nii.gz"
    nib.save(nib.Nifti1Image(rng.normal(size=(7, 8, 9)).astype(np.float32), affine), image)  # type: ignore[no-untyped-call]
    nib.save(nib.Nifti1Image(rng.integers(0, 3, (7, 8, 9)).astype(np.uint8), affine), mask)  # type: ignore[no-untyped-call]
    files = {"mask": mask} if labelled else {}
    return Case(f"case {number}", f"p{number}", None, number + 2, {"t1": image}, files=files)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> PreparedCache:
    return PreparedCache(tmp_path / "cache", PREPARATION)


def assert_same(found: Prepared, expected: Prepared) -> None:
    for field in fields(Prepared):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, Grid):
            assert one.shape == other.shape and np.array_equal(one.affine, other.affine)
        else:
            np.testing.assert_equal(one, other, err_msg=field.name)


def entries(cache: PreparedCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def test_an_entry_is_what_was_prepared(cache: PreparedCache, case: Case) -> None:
    assert_same(cache.get(case), prepare_case(case, PREPARATION))
    found = PreparedCache(cache.folder, PREPARATION).get(case)
    assert_same(found, prepare_case(case, PREPARATION))
    assert isinstance(found.image_CDHW, np.memmap) and isinstance(found.labels["organ"], np.memmap)
    assert not found.image_CDHW.flags.writeable


def test_a_case_without_a_label_file(cache: PreparedCache, tmp_path: Path) -> None:
    assert cache.get(make_case(tmp_path, 5, labelled=False)).labels == {}


def test_only_the_owner_may_read(cache: PreparedCache, case: Case) -> None:
    old = os.umask(0)
    try:
        cache.get(case)
    finally:
        os.umask(old)
    (entry,) = entries(cache)
    assert cache.folder.stat().st_mode & 0o777 == entry.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in entry.iterdir()} == {0o600}


def test_a_whole_entry_is_not_built_again(cache: PreparedCache, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.get(case)
    monkeypatch.setattr(cache_module, "prepare_case", lambda *_: pytest.fail("prepared again"))
    cache.get(case)
    later = PreparedCache(cache.folder, PREPARATION)
    later.ensure([case], 2)
    assert later.get(case).case_id == case.case_id


@pytest.mark.covers("B157")
def test_new_bytes_under_an_old_name_and_time_make_a_new_entry(
    cache: PreparedCache, case: Case, tmp_path: Path
) -> None:
    first = np.array(cache.get(case).image_CDHW)
    path = case.images["t1"]
    before = path.stat()
    shutil.copy(make_case(tmp_path, 9).images["t1"], path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = PreparedCache(cache.folder, PREPARATION).get(case)
    assert not np.array_equal(found.image_CDHW, first)
    assert_same(found, prepare_case(case, PREPARATION))


@pytest.mark.covers("B157")
def test_settings_labels_and_version_are_part_of_the_name(
    cache: PreparedCache, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.get(case)
    PreparedCache(cache.folder, Preparation((1.0, 1.0, 2.0), ("t1",), {"organ": "mask"})).get(case)
    PreparedCache(cache.folder, Preparation((1.0, 1.0, 1.5), ("t1",), {})).get(case)
    PreparedCache(cache.folder, Preparation((1.0, 1.0, 1.5), ("t1",), {"organ": "mask"}, True)).get(case)
    assert len(entries(cache)) == 4
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    PreparedCache(cache.folder, PREPARATION).get(case)
    assert len(entries(cache)) == 5


@pytest.mark.covers("B157")
def test_of_a_table_of_boxes_a_cases_own_rows_are_part_of_the_name(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "boxes.csv"
    own = "case 0,3,4,8,3\n"

    def found(rows: str, frame: Literal["ras", "lps"] = "ras") -> Prepared:
        boxed = replace(case, files={"mask": table})
        table.write_text(f"case_id,x_mm,y_mm,z_mm,diameter_mm\n{rows}")
        preparation = replace(PREPARATION, boxes={"organ": frame})
        prepared = PreparedCache(tmp_path / "cache", preparation).get(boxed)
        assert_same(prepared, prepare_case(boxed, preparation))
        return prepared

    def count() -> int:
        return len(list((tmp_path / "cache").iterdir()))

    first = found(own)
    assert set(np.unique(first.labels["organ"])) == {0, 1}
    with monkeypatch.context() as patch:
        patch.setattr(PreparedCache, "_build", lambda *_: pytest.fail("prepared again"))
        # somebody else's row, and the same number written otherwise
        found(own + "case 1,1,1,1,1\n")
        found("case 0,3.0,4,8,3\n")
    assert count() == 1
    moved = found("case 0,4,4,8,3\n")
    assert not np.array_equal(moved.labels["organ"], first.labels["organ"])
    found("case 0,-3,-4,8,3\n", "lps")  # the first box again
    assert count() == 2
    assert not found("").labels["organ"].any()
    assert count() == 3


@pytest.mark.covers("B157")
def test_what_does_not_count_is_part_of_the_name(cache: PreparedCache, case: Case, tmp_path: Path) -> None:
    cache.get(case)
    ignoring = replace(PREPARATION, ignored={"organ": 2})
    assert_same(PreparedCache(cache.folder, ignoring).get(case), prepare_case(case, ignoring))
    body = tmp_path / "body.nii.gz"
    mapped = replace(PREPARATION, labels={}, maps={"dose": ("dose", "body")})
    dosed = replace(case, files={"dose": case.images["t1"], "body": body})
    for number in (0, 1):
        shutil.copy(make_case(tmp_path, number).files["mask"], body)
        assert_same(PreparedCache(cache.folder, mapped).get(dosed), prepare_case(dosed, mapped))


def test_which_channel_a_case_lacks_is_part_of_the_name(cache: PreparedCache, case: Case) -> None:
    path = case.images["t1"]
    either = replace(PREPARATION, channels=("t1", "t2"), optional=("t1", "t2"))
    for held in ("t1", "t2"):
        other = replace(case, images={held: path})
        found = PreparedCache(cache.folder, either).get(other)
        assert_same(found, prepare_case(other, either))
        assert [bool(own) for own in found.statistics] == [held == "t1", held == "t2"]
    assert len(entries(cache)) == 2


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.covers("B157", "F53")
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["image.npy", "labels-organ.npy", "foreground-organ.npy", "meta.json"])
def test_a_damaged_entry_is_built_again(
    cache: PreparedCache, case: Case, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cache.get(case)
    damage(entries(cache)[0] / name)
    later = PreparedCache(cache.folder, PREPARATION)
    with caplog.at_level(logging.WARNING):
        later.ensure([case], 1)
    assert later.rebuilt == {case.case_id}
    assert len(caplog.records) == 1
    assert_same(later.get(case), prepare_case(case, PREPARATION))
    assert len(entries(cache)) == 1


def test_a_changed_number_in_the_record_is_seen(cache: PreparedCache, case: Case) -> None:
    cache.get(case)
    meta = entries(cache)[0] / "meta.json"
    meta.write_text(meta.read_text().replace("1.5", "1.4", 1))
    later = PreparedCache(cache.folder, PREPARATION)
    assert later.get(case).grid.spacing == (1.0, 1.0, 1.5)
    assert later.rebuilt


def test_an_entry_removed_while_in_use_comes_back(cache: PreparedCache, case: Case) -> None:
    cache.get(case)
    shutil.rmtree(cache.folder)
    assert_same(cache.get(case), prepare_case(case, PREPARATION))


@pytest.mark.covers("F52")
def test_two_builders_of_one_entry(cache: PreparedCache, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2)

    def together(*arguments: Any) -> Prepared:
        prepared = prepare_case(*arguments)
        barrier.wait(10)
        return prepared

    monkeypatch.setattr(cache_module, "prepare_case", together)
    found: list[Prepared] = []
    builders = [
        threading.Thread(target=lambda: found.append(PreparedCache(cache.folder, PREPARATION).get(case)))
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(entries(cache)) == 1
    for prepared in found:
        assert_same(prepared, prepare_case(case, PREPARATION))
    assert len(found) == 2


def test_ensure_reports_progress_and_removes_old_leftovers(cache: PreparedCache, tmp_path: Path) -> None:
    cases = [make_case(tmp_path, number) for number in range(5)]
    cache.folder.mkdir()
    old, young = cache.folder / ".tmp-0", cache.folder / ".tmp-1"
    for folder in (old, young):
        folder.mkdir()
        (folder / "image.npy").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    seen: list[tuple[int, int]] = []
    cache.ensure(cases, 3, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(6)]
    assert not old.exists() and young.exists()
    assert len(entries(cache)) == 6


@pytest.mark.covers("F18")
def test_what_is_prepared_is_let_go_while_an_earlier_case_takes_its_time(
    cache: PreparedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [make_case(tmp_path, number) for number in range(6)]
    get, last = cache.get, threading.Event()
    made: list[weakref.ref[Prepared]] = []

    def slow_first(case: Case) -> Prepared:
        if case is cases[0]:
            assert last.wait(20)
            gc.collect()
            assert sum(found() is not None for found in made) <= 1
        found = get(case)
        made.append(weakref.ref(found))
        if case is cases[-1]:
            last.set()
        return found

    monkeypatch.setattr(cache, "get", slow_first)
    cache.ensure(cases, 2)
    assert last.is_set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_nothing_and_cases_are_prepared_anew_with_one_warning(
    cache: PreparedCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    cases = [make_case(tmp_path, place) for place in range(3)]
    cache.get(cases[0])

    def full(path: Path, array: Any) -> str:
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(cache_module, "_save", full)
    cache.ensure(cases, 2)
    for case in cases:
        assert_same(cache.get(case), prepare_case(case, PREPARATION))
    assert len(entries(cache)) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert os.strerror(number) in caplog.text
    assert "set cache.folder" in caplog.text


def test_two_threads_that_meet_a_full_disk_at_once_warn_once(
    cache: PreparedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = threading.Barrier(2)

    def full(path: Path, array: Any) -> str:
        both.wait(20)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def told(error: OSError) -> str:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # nobody else comes to tell it
        return str(error)

    monkeypatch.setattr(cache_module, "_save", full)
    monkeypatch.setattr(cache_module, "why", told)
    cache.ensure([make_case(tmp_path, place) for place in range(2)], 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="needs /dev/full")
def test_numpy_says_why_a_write_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    # O_EXCL refuses a device
    monkeypatch.setattr(os, "O_EXCL", 0)
    with pytest.raises(OSError) as caught:
        cache_module._save(Path("/dev/full"), np.zeros(100_000))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.covers("F41")
def test_a_missing_file_is_named_with_its_case(cache: PreparedCache, case: Case) -> None:
    case.images["t1"].unlink()
    with pytest.raises(WorkError, match=r"case 'case 0' could not be prepared: .*image-0\.nii\.gz"):
        cache.get(case)


@pytest.mark.covers("F39")
def test_a_file_that_changes_while_it_is_read_is_not_kept(
    cache: PreparedCache, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*arguments: Any) -> Prepared:
        shutil.copy(make_case(tmp_path, 9).images["t1"], case.images["t1"])
        return prepare_case(*arguments)

    monkeypatch.setattr(cache_module, "prepare_case", changed)
    with pytest.raises(WorkError, match="changed while it was read"):
        cache.get(case)
    assert not cache.folder.exists()


@pytest.mark.covers("B157")
def test_entries_built_again_are_counted(
    cache: PreparedCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [make_case(tmp_path, number) for number in range(3)]
    cache.ensure(cases, 1)
    for entry in entries(cache)[:2]:
        truncate(entry / "image.npy")
    with caplog.at_level(logging.INFO):
        PreparedCache(cache.folder, PREPARATION).ensure(cases, 1)
    assert caplog.messages[-1] == "2 damaged cache entries were built again"


@pytest.mark.covers("B158")
@pytest.mark.parametrize("use", ["ensure", "get"])
def test_a_cache_that_every_user_may_write_to_is_refused(cache: PreparedCache, case: Case, use: str) -> None:
    cache.get(case)
    cache.folder.chmod(0o777)
    later = PreparedCache(cache.folder, PREPARATION)
    with pytest.raises(ArtefactError, match=r"^\[B158\] .*set cache\.folder"):
        later.ensure([case], 1) if use == "ensure" else later.get(case)
    cache.folder.chmod(0o700)
    assert_same(later.get(case), prepare_case(case, PREPARATION))


@pytest.mark.covers("F32")
def test_a_lack_of_memory_names_the_row(cache: PreparedCache, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*arguments: Any) -> Prepared:
        raise MemoryError("Unable to allocate 8.00 GiB for an array with shape (1, 2) and data type float32")

    monkeypatch.setattr(cache_module, "prepare_case", hungry)
    with pytest.raises(MachineError, match=r"prepared \(row 2\): out of memory \(Unable to allocate 8\.00 GiB"):
        cache.get(case)
