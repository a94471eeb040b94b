"""A run folder is there whole or not at all, in a safe place, and its log loses nothing that stands."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from medmtl import config, files, run_folder
from medmtl.errors import ArtefactError, BusyRunError, InputError, WorkError
from medmtl.folder_lock import FolderLock
from medmtl.run_folder import RunFolder, open_folds
from medmtl.run_place import refuse_place

CONFIG = """
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: patient_id, channels: {ct: image}}
tasks:
  lesion: {kind: segmentation, column: label, labels: {lesion: 1}}
training: {steps: 10}
"""
FILES = {
    "config.yaml",
    "plan.json",
    "splits.json",
    "manifest.json",
    "findings.json",
    "log.jsonl",
    "checkpoints",
    ".lock",
}
NOBODY = {"table_sha256": "0" * 64, "files_sha256": {}, "voxels_sha256": {}, "patients": [], "trained": {}}


def configured(folder: Path) -> config.Config:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "cohort.csv").write_text("case_id\n")
    return config.load(folder / "config.yaml")


def create(out: Path, cohort: Path) -> RunFolder:
    return RunFolder.create(
        out,
        config=configured(cohort),
        plan={"steps": 10},
        splits={"folds": [{"train": ["a"], "val": ["b"]}], "test": []},
        findings=[{"code": "B003", "severity": "fixed"}],
        manifest={"fold": 0, "seed": 0, "device": "cpu", **NOBODY},
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "runs" / "heart", tmp_path / "cohort")


def test_a_run_is_whole_and_private(run: RunFolder, tmp_path: Path) -> None:
    assert set(os.listdir(run.path)) == FILES
    assert os.listdir(run.path.parent) == ["heart"]
    for path in (run.path.parent, run.path, *run.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert run.load_config().cohort.table.resolve() == tmp_path.resolve() / "cohort" / "cohort.csv"
    assert json.loads(run.plan.read_text()) == {"steps": 10}
    assert json.loads(run.findings.read_text())[0]["code"] == "B003"
    assert run.read_log() == []
    assert run.evaluation("val") == run.path / "evaluation" / "val"
    assert RunFolder.open(run.path).path == run.path


def test_the_manifest_names_what_the_run_was_made_with(run: RunFolder) -> None:
    manifest = run.load_manifest()
    assert (manifest["fold"], manifest["seed"], manifest["device"]) == (0, 0, "cpu")
    for package in ("torch", "monai", "numpy", "nibabel"):
        assert manifest["versions"][package] == version(package)
    assert {"python", "medmtl"} <= manifest["versions"].keys()
    run.manifest.write_text('{"fold": 0}')
    with pytest.raises(ArtefactError, match="manifest"):
        run.load_manifest()


@pytest.mark.covers("B042")
def test_an_existing_run_is_never_merged_into(run: RunFolder, tmp_path: Path) -> None:
    run.log({"step": 1})
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"^\[B042\] .*not empty"):
        create(run.path, tmp_path / "cohort")
    with pytest.raises(InputError, match=r"^\[B042\] .*--resume"):
        refuse_place(run.path, tmp_path / "cohort" / "cohort.csv")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert os.listdir(run.path.parent) == ["heart"]


def test_its_name_is_on_disk_when_it_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    rename, sync = os.rename, files.fsync_folder

    def spy_rename(source: Path, target: Path) -> None:
        rename(source, target)
        calls.append("rename")

    def spy_sync(path: Path) -> None:
        sync(path)
        calls.append(path)

    monkeypatch.setattr(os, "rename", spy_rename)
    monkeypatch.setattr(run_folder, "fsync_folder", spy_sync)
    create(tmp_path / "runs" / "heart", tmp_path / "cohort")
    assert calls[-2:] == ["rename", tmp_path / "runs"]


def test_an_empty_folder_becomes_the_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refuse_place(tmp_path / "out", tmp_path / "cohort" / "cohort.csv")
    assert set(os.listdir(create(tmp_path / "out", tmp_path / "cohort").path)) == FILES


def test_a_run_made_through_a_link_finds_its_cohort(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "deep")
    create(tmp_path / "runs" / "heart", tmp_path / "cohort")
    assert RunFolder.open(tmp_path / "runs" / "heart").load_config().cohort.table.read_text() == "case_id\n"


@pytest.mark.covers("B043")
def test_places_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "users" / "me"
    table, image = tmp_path / "data" / "cohort" / "cohort.csv", tmp_path / "images" / "a" / "a.nii.gz"
    for folder in (home, table.parent, image.parent, tmp_path / "clone" / ".git", tmp_path / "empty"):
        folder.mkdir(parents=True)
    table.touch()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(home))
    refused = [
        "users",
        "users/me",
        "data",
        "data/cohort",
        "images",
        "images/a",
        "clone",
        "data/x/../cohort",
        "link",
        "file",
    ]
    with pytest.raises(InputError, match=r"^\[B043\] /proc is where a disk is mounted.* such as /proc/run$"):
        refuse_place(Path("/proc"))
    for place in [*(tmp_path / name for name in refused), Path("/")]:
        with pytest.raises(InputError, match=r"^\[B042\] .*not empty" if place.name == "file" else r"^\[B043\] "):
            refuse_place(place, table, image)
    for name in ("empty", "new", "data/cohort/run", "users/me/run", "clone/run"):
        refuse_place(tmp_path / name, table, image)
    monkeypatch.chdir(table.parent)
    with pytest.raises(InputError, match="cohort"):
        refuse_place(Path("."), Path("cohort.csv"))


class Killed(BaseException):
    """Stands for SIGKILL: no later change of the disk works, so nothing is cleaned up either."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], object]) -> int:
    """Run ``action``; from the ``at``-th change of the disk on, every one fails. Returns the changes tried."""
    calls = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if 0 < at <= calls:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "mkdir", "rename", "replace", "unlink", "rmdir"):
            patch.setattr(os, name, wrap(getattr(os, name)))
        if at:
            with pytest.raises(Killed):
                action()
        else:
            action()
    return calls


def test_a_run_killed_while_it_is_made_is_absent_or_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    create(tmp_path / "made" / "before", tmp_path / "cohort")
    count = dying(monkeypatch, 0, lambda: create(tmp_path / "made" / "dry", tmp_path / "cohort"))
    assert count > 10
    for at in range(1, count + 1):
        out = tmp_path / "made" / f"{at}"
        dying(monkeypatch, at, lambda out=out: create(out, tmp_path / "cohort"))  # type: ignore[misc]
        if out.exists():
            assert set(os.listdir(out)) == FILES
        else:
            with pytest.raises(InputError, match="no folder"):
                RunFolder.open(out)
            create(out, tmp_path / "cohort")
        RunFolder.open(out)
        assert not [name for name in os.listdir(out.parent) if name.startswith(".")]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(WorkError, match="No space left"):
        create(tmp_path / "runs" / "heart", tmp_path / "cohort")
    assert os.listdir(tmp_path / "runs") == []


def test_another_process_making_the_same_run_is_left_alone(tmp_path: Path) -> None:
    alive, dead = tmp_path / ".run.tmp-1", tmp_path / ".run.tmp-2"
    others = [tmp_path / name for name in (".run.tmp-x", ".other.tmp-2", "run.tmp-2")]
    for folder in (alive, dead, *others):
        folder.mkdir()
    with FolderLock(alive):
        create(tmp_path / "run", tmp_path / "cohort")
        assert alive.exists()
    assert not dead.exists()
    assert all(folder.exists() for folder in others)


def test_opening_what_is_no_run_says_what_is_missing(run: RunFolder, tmp_path: Path) -> None:
    run.plan.unlink()
    with pytest.raises(InputError, match=r"has no plan\.json$"):
        RunFolder.open(run.path)
    with pytest.raises(InputError, match=r"config\.yaml, plan\.json, splits\.json, manifest\.json"):
        open_folds(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        open_folds(tmp_path / "absent")


def test_folds_are_opened_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for fold in (10, 2, 0):
        create(tmp_path / "run" / f"fold-{fold}", tmp_path / "cohort")
    (tmp_path / "run" / "fold-notes").mkdir()
    assert [run.path.name for run in open_folds(tmp_path / "run")] == ["fold-0", "fold-2", "fold-10"]
    assert [run.path.name for run in open_folds(tmp_path / "run" / "fold-2")] == ["fold-2"]
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    with pytest.raises(InputError, match="one of the folds"):
        RunFolder.open(tmp_path / "run")
    (tmp_path / "run" / "fold-2" / "splits.json").unlink()
    with pytest.raises(InputError, match="fold-2"):
        open_folds(tmp_path / "run")


def test_the_log_keeps_order_and_writes_what_is_not_finite_as_null(run: RunFolder) -> None:
    run.log({"step": 1, "losses": {"a": 0.1, "b": float("nan")}, "list": [float("inf"), (1, -0.0)]})
    run.log({"step": 2, "note": "é\u2028"})
    run.sync_log()
    assert run.log_file.read_bytes() == (
        b'{"step": 1, "losses": {"a": 0.1, "b": null}, "list": [null, [1, -0.0]]}\n'
        b'{"step": 2, "note": "\\u00e9\\u2028"}\n'
    )
    assert [record["step"] for record in run.read_log()] == [1, 2]


def test_torn_lines_are_left_out_with_a_warning(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run.log({"step": 1})
    with open(run.log_file, "ab") as file:
        file.write(b'{"step": 2, "x')
    assert run.read_log() == [{"step": 1}]
    run.log({"step": 3})
    with open(run.log_file, "ab") as file:
        file.write(b'\xff\n7\n{"step"')
    caplog.clear()
    assert run.read_log() == [{"step": 1}, {"step": 3}]
    assert "4 damaged lines" in caplog.text


def test_a_resumed_log_equals_the_uninterrupted_one(run: RunFolder) -> None:
    def record(step: int) -> dict[str, Any]:
        return {"step": step, "losses": {"a": 1 / (step + 3), "b": 1e-7 * step}, "seconds": step / 7}

    for step in range(1, 9):
        run.log(record(step))
    whole = run.log_file.read_bytes()
    run.log({"step": 9})
    with open(run.log_file, "ab") as file:
        file.write(b'{"step": 10')
    run.truncate_log(5)
    assert [item["step"] for item in run.read_log()] == [1, 2, 3, 4, 5]
    for step in range(6, 9):
        run.log(record(step))
    assert run.log_file.read_bytes() == whole
    assert stat.S_IMODE(run.log_file.stat().st_mode) == 0o600
    run.truncate_log(0)
    assert run.log_file.read_bytes() == b""


@pytest.mark.covers("F68")
def test_a_linked_log_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    run.log_file.unlink()
    run.log_file.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"log\.jsonl"):
        run.log({"step": 1})
    with pytest.raises(ArtefactError, match="link"):
        run.read_log()
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_lock_is_exclusive_and_removes_leftovers(run: RunFolder) -> None:
    (run.path / ".tmp-0123456789abcdef").touch()
    with run.lock():
        assert set(os.listdir(run.path)) == FILES
        with pytest.raises(BusyRunError, match=str(os.getpid())), run.lock():
            pass
    with run.lock():
        pass


@pytest.mark.covers("B049")
def test_a_run_that_others_may_write_to_is_warned_about(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    with run.lock():
        assert caplog.text == ""
    run.path.chmod(0o770)
    with run.lock():
        assert f"[B049] other users may write to {run.path}" in caplog.text
