"""A commit on a disk that fails: not claimed, the one before it whole, nothing left, and the next one works."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmtl import checkpoint
from tests.faults.disk import Answer, Worker, immutable, name

covers = pytest.mark.covers


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("worker"))
    yield made
    made.close()


def saved(worker: Worker, folder: Path, step: int, size: int = 3) -> Answer:
    return worker.run(f"save({str(folder)!r}, {step}, {size})")


def newest(folder: Path) -> int:
    loaded = checkpoint.load(folder)
    assert loaded is not None
    assert loaded.state == {"seen": loaded.step}
    assert float(loaded.tensors["model"]["w"][0]) == loaded.step
    return loaded.step


def assert_kept(worker: Worker, folder: Path, failed: Answer, seen: Path | None = None) -> None:
    """Steps 1 and 2 stand, nothing is left of step 3, and step 4 can be committed."""
    assert failed.error == "OSError", failed
    seen = seen or folder
    assert sorted(os.listdir(seen)) == ["last", "step-000001", "step-000002"]
    assert (seen / "last").read_text() == "step-000002\n"
    assert newest(seen) == 2
    assert saved(worker, folder, 4).error is None
    assert newest(seen) == 4


@pytest.fixture
def folder(worker: Worker, tmp_path: Path) -> Path:
    for step in (1, 2):
        assert saved(worker, tmp_path / "checkpoints", step).error is None
    return tmp_path / "checkpoints"


FAULTS = [
    pytest.param("write", errno.ENOSPC, 1, marks=covers("F17"), id="full"),
    pytest.param("write", errno.EDQUOT, 2, marks=covers("F21"), id="quota"),
    pytest.param("write", errno.EIO, 1, marks=covers("F23"), id="write"),
    pytest.param("fsync", errno.EIO, 1, marks=covers("F24"), id="sync"),
    pytest.param("fsync", errno.EIO, 4, marks=covers("F24"), id="sync of the record"),
    pytest.param("fsync", errno.EIO, 5, marks=covers("F25"), id="sync of the new folder"),
    pytest.param("rename", errno.EIO, 1, marks=covers("F25"), id="rename"),
    pytest.param("fsync", errno.EIO, 6, marks=covers("F25"), id="sync of the folder above"),
    pytest.param("mkdir", errno.EROFS, 1, marks=covers("F28"), id="read-only"),
]


@pytest.mark.parametrize(("call", "number", "when"), FAULTS)
def test_a_failing_call_is_no_commit(worker: Worker, folder: Path, call: str, number: int, when: int) -> None:
    with worker.traced(call, f"{call}:error={name(number)}:when={when}"):
        failed = saved(worker, folder, 3)
    assert failed.errno == number
    assert os.strerror(number) in failed.message
    assert "step-000003" in failed.message or str(folder) in failed.message
    assert_kept(worker, folder, failed)


@covers("F24")
def test_after_a_failed_sync_new_files_are_written(worker: Worker, folder: Path) -> None:
    # the same step again: what was written and perhaps lost is not synced a second time
    with worker.traced("fsync,unlinkat,openat", "fsync:error=EIO:when=2") as trace:
        assert saved(worker, folder, 3).errno == errno.EIO
        assert saved(worker, folder, 3).error is None
    text = trace.read_text()
    assert len(re.findall(r"model\.safetensors\", O_WRONLY\|O_CREAT\|O_EXCL", text)) == 2
    assert len(re.findall(r"unlinkat\([^\n]*step-000003[^\n]*\"model\.safetensors\"", text)) == 1
    assert newest(folder) == 3


@covers("F26")
@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_a_write_that_lies_is_caught_by_reading_back(worker: Worker, folder: Path, when: int) -> None:
    # strace does not run the call and claims that all its bytes were written
    with worker.traced("write", f"write:retval=1000000:when={when}"):
        failed = saved(worker, folder, 3)
    assert failed.errno == errno.EIO
    assert "read back" in failed.message
    assert_kept(worker, folder, failed)


@covers("F26")
def test_a_write_that_takes_nothing_for_ever_ends(worker: Worker, folder: Path) -> None:
    with worker.traced("write", "write:retval=0:when=1"):
        failed = saved(worker, folder, 3)
    assert failed.errno == errno.EIO
    assert_kept(worker, folder, failed)


@covers("F62")
def test_files_are_synced_read_back_then_renamed_then_the_folder_is_synced(worker: Worker, folder: Path) -> None:
    with worker.traced("fsync,rename,renameat,renameat2,openat") as trace:
        assert saved(worker, folder, 3).error is None
    order = []
    for line in trace.read_text().splitlines():
        if match := re.search(r"openat\(.*/([a-z.]+)\", O_RDONLY\|O_CLOEXEC\)", line):
            order.append(f"read {match[1]}")
        elif match := re.search(r"fsync\(\d+<(.*)>\)\s+= 0", line):
            order.append(f"sync {Path(match[1]).name}")
        elif match := re.search(r"rename\(\"(.*)\", \"(.*)\"\) = 0", line):
            order.append(f"rename {Path(match[2]).name}")
    files = ["model.safetensors", "optimiser.safetensors", "state.json", "commit.json"]
    (temporary,) = {entry.removeprefix("sync ") for entry in order if ".step-000003.tmp-" in entry}
    assert order[: 2 * len(files)] == [f"{what} {file}" for file in files for what in ("sync", "read")]
    assert order[2 * len(files) : 2 * len(files) + 3] == [
        f"sync {temporary}",
        "rename step-000003",
        f"sync {folder.name}",
    ]


@covers("F22")
def test_a_limit_on_the_size_of_files_is_no_commit(worker: Worker, folder: Path) -> None:
    with worker.limited(resource.RLIMIT_FSIZE, 100_000):
        failed = saved(worker, folder, 3, size=50_000)
    assert failed.errno == errno.EFBIG
    assert_kept(worker, folder, failed)


@covers("F31")
def test_too_many_open_files_is_no_commit(worker: Worker, folder: Path) -> None:
    with worker.limited(resource.RLIMIT_NOFILE, 3):
        failed = saved(worker, folder, 3)
    assert failed.errno == errno.EMFILE
    assert_kept(worker, folder, failed)


@covers("F30")
def test_an_immutable_folder_is_no_commit(worker: Worker, folder: Path) -> None:
    with immutable(folder):
        failed = saved(worker, folder, 3)
        assert failed.error == "PermissionError"
        assert failed.errno == errno.EPERM
        assert newest(folder) == 2
    assert saved(worker, folder, 4).error is None


@pytest.mark.parametrize(
    ("options", "size"),
    [
        pytest.param("size=160k", 20_000, marks=covers("F17"), id="bytes"),
        pytest.param("size=1m,nr_inodes=16", 3, marks=covers("F20"), id="inodes"),
    ],
)
def test_a_full_disk_is_no_commit(worker: Worker, tmp_path: Path, options: str, size: int) -> None:
    folder = tmp_path / "disk"
    with worker.small_disk(folder, options) as seen:
        for step in (1, 2):
            assert saved(worker, folder, step).error is None
        failed = saved(worker, folder, 3, size=size)
        assert failed.errno == errno.ENOSPC
        assert newest(seen) == 2
        assert sorted(os.listdir(seen)) == ["last", "step-000001", "step-000002"]
        worker.run(f"import shutil; shutil.rmtree({str(folder / 'step-000001')!r})")
        assert saved(worker, folder, 4).error is None
        assert newest(seen) == 4
