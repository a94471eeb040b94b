"""One folder has one writer."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medmtl import folder_lock
from medmtl.errors import BusyRunError, MachineError
from medmtl.folder_lock import FolderLock, output_lock


def test_a_lock_is_exclusive_and_names_its_holder(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(BusyRunError, match=f"process {os.getpid()} on "), FolderLock(tmp_path):
            pass
        with pytest.raises(BusyRunError), FolderLock(tmp_path):
            pass
    with FolderLock(tmp_path):
        pass


@pytest.mark.covers("F51")
def test_a_lock_ignores_a_stale_file_and_refuses_a_link(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(f"elsewhere {os.getpid()}\n")
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text().split()[1] == str(os.getpid())
    (tmp_path / "run").mkdir()
    (tmp_path / "target").write_text("mine")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError), FolderLock(tmp_path / "run"):
        pass
    assert (tmp_path / "target").read_text() == "mine"


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from medmtl.folder_lock import FolderLock\n"
        "with FolderLock(pathlib.Path(sys.argv[1])):\n    sys.stdout.write('held'); sys.stdout.flush(); time.sleep(60)"
    )
    root = Path(folder_lock.__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.read(4) == b"held"
        with pytest.raises(BusyRunError, match=f"process {holder.pid} "), FolderLock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with FolderLock(tmp_path):
            pass


def test_a_forked_process_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()

    def outlive() -> None:
        ready.set()
        over.wait(60)

    child = context.Process(target=outlive)
    with FolderLock(tmp_path):
        child.start()
        assert ready.wait(60)
    try:
        with FolderLock(tmp_path):
            pass
    finally:
        over.set()
        child.join()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(MachineError, match="without locks"), FolderLock(tmp_path):
        pass
    with output_lock(tmp_path, []), output_lock(tmp_path, []):  # results are written all the same
        pass


def test_a_folder_of_results_is_waited_for_as_long_as_asked(tmp_path: Path) -> None:
    with output_lock(tmp_path, []):
        with pytest.raises(BusyRunError, match="in use by process"), output_lock(tmp_path, [], patience=0.1):
            pass
        waiting = threading.Thread(target=_hold, args=[tmp_path])
        waiting.start()
    waiting.join(60)
    assert [path.name for path in tmp_path.iterdir()] == ["written"]


def test_a_lock_whose_file_its_holder_removes_is_taken_by_one_after_the_other(tmp_path: Path) -> None:
    """As many threads as rows: each reads, waits and writes, so that two at once would lose a row."""
    rows = tmp_path / "rows"
    rows.write_text("")

    def add(number: int) -> None:
        with output_lock(tmp_path, [], patience=60):
            before = rows.read_text()
            time.sleep(0.01)
            rows.write_text(f"{before}{number} ")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(32)))
    assert sorted(map(int, rows.read_text().split())) == list(range(32))
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def _hold(folder: Path) -> None:
    with output_lock(folder, [], patience=60):
        (folder / "written").touch()


@pytest.mark.covers("F05")
def test_what_a_killed_process_left_in_a_folder_of_results_goes(tmp_path: Path) -> None:
    masks, elsewhere = tmp_path / "out" / "masks", tmp_path / "elsewhere"
    for folder in (masks, elsewhere):
        folder.mkdir(parents=True)
        (folder / ".tmp-0123456789abcdef").touch()
    (tmp_path / "out" / "maps").symlink_to(elsewhere)
    (masks / "a.nii.gz").touch()
    with output_lock(tmp_path / "out", [masks, tmp_path / "out" / "maps", tmp_path / "out" / "boxes"]):
        assert [entry.name for entry in masks.iterdir()] == ["a.nii.gz"]
        assert (tmp_path / "out" / ".lock").is_file()
    assert [entry.name for entry in elsewhere.iterdir()] == [".tmp-0123456789abcdef"]
    assert not (tmp_path / "out" / ".lock").exists()


def test_where_files_cannot_be_told_apart_results_are_written_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)
    monkeypatch.setattr(folder_lock, "TRIES", 3)
    with pytest.raises(MachineError, match="whether two files are one"), FolderLock(tmp_path, leaves=False):
        pass
    with FolderLock(tmp_path), output_lock(tmp_path / "..", []):
        pass
