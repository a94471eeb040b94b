"""What a disk refuses is said before the work starts, with what to do about it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from medmtl import disk
from medmtl.errors import ArtefactError, MachineError
from tests.faults.disk import immutable


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device: /d/x; free space or inodes on that disk"),
        (errno.EDQUOT, "Disk quota exceeded: /d/x; free space, or have your quota on that disk raised"),
        (errno.EIO, "Input/output error: /d/x; the disk fails"),
        (errno.EROFS, "Read-only file system: /d/x; the disk is read-only"),
        (errno.EINVAL, "Invalid argument: /d/x"),
    ],
)
def test_an_error_says_what_where_and_what_to_do(number: int, words: str) -> None:
    assert disk.why(OSError(number, os.strerror(number), "/d/x")).startswith(words)


def test_limits_are_named_with_their_value() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert f"may have {limit} files open: raise ulimit -n" in disk.why(OSError(errno.EMFILE, "Too many open files"))
    assert disk.why(OSError("no number")) == "no number"


def test_room_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found, expected = disk.room_at(tmp_path / "a" / "b"), os.statvfs(tmp_path)
    assert abs(found.bytes - expected.f_bavail * expected.f_frsize) < 1 << 30
    assert found.device == tmp_path.stat().st_dev


@pytest.mark.covers("B044")
@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "rename"])
def test_a_place_that_refuses_any_part_of_a_commit_is_refused_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    disk.probe(tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == []

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(MachineError, match=r"^\[B044\] nothing can be written at .*run: Read-only file system"):
            disk.probe(tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == []
    assert MachineError.exit_code == 3


@pytest.mark.covers("B044")
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(MachineError, match=r"^\[B044\] .* without locks"):
        disk.probe(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.covers("B044")
def test_an_immutable_place_is_refused(tmp_path: Path) -> None:
    with immutable(tmp_path), pytest.raises(MachineError, match=r"^\[B044\] .*Operation not permitted.*immutable"):
        disk.probe(tmp_path / "run")


@pytest.mark.covers("B049")
@pytest.mark.parametrize(
    ("mode", "wide"), [(0o700, False), (0o755, False), (0o770, True), (0o707, True), (0o1777, False)]
)
def test_who_else_may_write(tmp_path: Path, mode: int, wide: bool) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    folder.chmod(mode)
    assert disk.is_open_to_others(folder) is wide


@pytest.mark.covers("B158")
def test_a_folder_that_others_could_have_filled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.refuse_foreign(tmp_path, "cache.folder")
    tmp_path.chmod(0o777)
    with pytest.raises(ArtefactError, match=r"^\[B158\] .*every user.*set cache\.folder"):
        disk.refuse_foreign(tmp_path, "cache.folder")
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ArtefactError, match=r"^\[B158\] .*belongs to user \d+"):
        disk.refuse_foreign(tmp_path, "cache.folder")
    assert ArtefactError.exit_code == 7
