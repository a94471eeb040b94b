"""What a training will write is known before it starts, and a disk that will not hold it is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmtl import config as configuration
from medmtl import disk
from medmtl.cli import main
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.device import describe_device
from medmtl.errors import MachineError
from medmtl.planning import Plan
from medmtl.run_folder import RunFolder
from medmtl.training import room, start
from medmtl.training.session import open_session
from medmtl.training.start import Ready, make_ready, plan_fold
from tests.conftest import TINY
from tests.faults.disk import Worker

covers = pytest.mark.covers
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def planned(tiny_cohort: Path) -> tuple[Ready, Plan, list[Case]]:
    """The tiny cohort as it was trained on, its plan, and the cases of fold 0."""
    ready = make_ready(configuration.load(tiny_cohort, TINY))
    train, val = ready.members(0)
    return ready, plan_fold(ready, 0, describe_device("cpu")), [*train, *val]


def taken(*folders: Path) -> int:
    """Bytes on disk of everything in some folders."""
    return sum(512 * path.lstat().st_blocks for folder in folders for path in (folder, *folder.rglob("*")))


@covers("B045")
@pytest.mark.covers("P20")
def test_the_prediction_is_what_a_training_takes_or_up_to_a_quarter_more(
    planned: tuple[Ready, Plan, list[Case]], trained_run: Path
) -> None:
    ready, plan, cases = planned
    need = room.predict_disk(ready.config, ready.checked, plan, cases)
    # one checkpoint more than are kept lies there for a moment
    newest = trained_run / "checkpoints" / "step-000006"
    run = taken(trained_run / "checkpoints", newest) + taken(trained_run / "log.jsonl")
    assert run <= need.run_bytes <= 1.25 * run
    entries = taken(*(path for path in (trained_run.parent / ".medmtl-cache").iterdir()))
    assert entries <= sum(need.entry_bytes.values()) <= 1.25 * entries
    assert need.bytes == need.run_bytes + sum(need.entry_bytes.values())
    files = len(list(newest.rglob("*"))) + 1
    assert files <= room.CHECKPOINT_FILES
    per_case = len([p for p in (trained_run.parent / ".medmtl-cache").rglob("*")]) / len(cases)
    assert per_case <= max(need.entry_files.values())


def test_a_short_training_and_an_optimiser_that_keeps_less_need_less(
    planned: tuple[Ready, Plan, list[Case]], trained_run: Path
) -> None:
    ready, plan, cases = planned
    training = ready.config.training

    def need(plan: Plan, **changes: Any) -> int:
        config = ready.config.model_copy(update={"training": training.model_copy(update=changes)})
        return room.predict_disk(config, ready.checked, plan, cases).run_bytes

    one = need(replace(plan, steps=training.checkpoint_every))
    assert need(plan) > 2.9 * one
    weights = sum(p.nbytes for p in open_session(RunFolder.open(trained_run)).learner.model.parameters())
    # three commits lie there for a moment, and AdamW's second moments are as large as the weights
    assert need(plan) - need(plan, optimiser="sgd") == 3 * weights


def test_a_start_predicts_it_once(
    planned: tuple[Ready, Plan, list[Case]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def predict(*arguments: Any) -> room.DiskNeed:
        found.append(room.predict_disk(*arguments))
        return found[-1]

    monkeypatch.setattr(start, "predict_disk", predict)
    run = start.start_run(planned[0], tmp_path / "run", 0, "cpu")
    assert [need.bytes for need in found] == [run.load_plan().disk_bytes] == [planned[1].disk_bytes]


def small(monkeypatch: pytest.MonkeyPatch, size: int, files: int | None = None) -> None:
    monkeypatch.setattr(room, "room_at", lambda path: disk.Room(1, size, files))


@covers("B045")
def test_a_disk_that_is_too_small_is_refused_with_both_numbers(
    planned: tuple[Ready, Plan, list[Case]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, plan, cases = planned
    need = room.predict_disk(ready.config, ready.checked, plan, cases)
    cache = PreparedCache(tmp_path / "cache", plan.preparation)
    small(monkeypatch, int(1.1 * need.bytes) + 10)
    room.refuse_full_disk(tmp_path / "run", need, cache, cases)
    small(monkeypatch, int(1.1 * need.bytes) - 10)
    with pytest.raises(MachineError, match=r"^\[B045\] .* has [\d.]+ MB free, .* needs about [\d.]+ MB and \d+ files"):
        room.refuse_full_disk(tmp_path / "run", need, cache, cases)
    small(monkeypatch, 1 << 50, files=20)
    with pytest.raises(MachineError, match=r"^\[B045\] .* free for 20 files, .*lower training\.keep, or set cache\."):
        room.refuse_full_disk(tmp_path / "run", need, cache, cases)


@covers("B045")
def test_entries_that_are_there_already_take_no_room(
    planned: tuple[Ready, Plan, list[Case]], trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, plan, cases = planned
    need = room.predict_disk(ready.config, ready.checked, plan, cases)
    small(monkeypatch, int(1.1 * need.run_bytes) + 10)
    warm = PreparedCache(trained_run.parent / ".medmtl-cache", plan.preparation)
    room.refuse_full_disk(trained_run.parent / "other", need, warm, cases)
    with pytest.raises(MachineError):
        room.refuse_full_disk(trained_run.parent / "other", need, PreparedCache(Path("/none"), plan.preparation), cases)


@covers("B045")
def test_two_disks_are_looked_at_apart(
    planned: tuple[Ready, Plan, list[Case]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, plan, cases = planned
    need = room.predict_disk(ready.config, ready.checked, plan, cases)
    cache = PreparedCache(tmp_path / "cache", plan.preparation)
    entries = sum(need.entry_bytes.values())
    sizes = {tmp_path / "run": 1.2 * need.run_bytes, cache.folder: 1.2 * entries}
    monkeypatch.setattr(room, "room_at", lambda path: disk.Room(len(str(path)), int(sizes[path]), None))
    room.refuse_full_disk(tmp_path / "run", need, cache, cases)
    sizes[cache.folder] = entries
    with pytest.raises(MachineError, match=r"the disk of .*/cache has"):
        room.refuse_full_disk(tmp_path / "run", need, cache, cases)


@covers("B046")
def test_too_many_loader_processes_for_the_shared_memory_are_refused(
    planned: tuple[Ready, Plan, list[Case]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, plan, _ = planned
    plan = replace(plan, workers=4)
    batch = plan.batch * plan.shape[0] * plan.shape[1] * plan.shape[2] * 5  # one channel, one byte of labels
    small(monkeypatch, 9 * batch)
    room.refuse_small_shared_memory(plan, ready.tasks)
    for free, fits in ((9 * batch - 1, 3), (7 * batch - 1, 2), (2 * batch, 0)):
        small(monkeypatch, free)
        with pytest.raises(MachineError, match=rf"^\[B046\] 4 loader processes .*set plan\.workers: {fits}, or"):
            room.refuse_small_shared_memory(plan, ready.tasks)
    room.refuse_small_shared_memory(replace(plan, workers=0), ready.tasks)


def train(config: Path, out: Path, workers: int = 0) -> int:
    settings = [w for key, v in {**TINY, "plan.workers": workers}.items() for w in ("--set", f"{key}={v}")]
    return main(["train", str(config), "--out", str(out), "--device", "cpu", "--quiet", *settings])


@covers("B045", "B046")
@pytest.mark.parametrize("code", ["B045", "B046"])
def test_a_training_that_has_no_room_ends_with_code_3_and_leaves_nothing(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, code: str
) -> None:
    if code == "B045":
        small(monkeypatch, 1000)
    else:
        monkeypatch.setattr(room, "SHARED_MEMORY", tmp_path)
        small(monkeypatch, 1000)
    assert train(tiny_cohort, tmp_path / "runs" / "run", workers=2 if code == "B046" else 0) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: [{code}] ")
    assert os.listdir(tmp_path) == []


@covers("B044")
def test_a_training_on_a_disk_that_refuses_ends_with_code_3(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(disk, "write_new", refuse)
    assert train(tiny_cohort, tmp_path / "run") == 3
    assert "[B044] nothing can be written at " in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@covers("B042", "B043")
def test_a_taken_or_dangerous_place_ends_with_code_2(trained_run: Path, tiny_cohort: Path, capsys: Captured) -> None:
    before = sorted(path.name for path in tiny_cohort.parent.rglob("*"))
    for place, code in ((trained_run, "B042"), (tiny_cohort.parent, "B043"), (tiny_cohort.parent / "images", "B043")):
        assert train(tiny_cohort, place) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: [{code}] ")
    assert sorted(path.name for path in tiny_cohort.parent.rglob("*")) == before


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.close()


@covers("B044")
def test_a_disk_that_is_mounted_read_only_is_refused(worker: Worker, tmp_path: Path) -> None:
    with worker.small_disk(tmp_path / "disk", "size=1m,ro"):
        failed = worker.run(f"from medmtl.disk import probe; probe(Path({str(tmp_path / 'disk' / 'run')!r}))")
    assert failed.error == "MachineError"
    assert failed.message.startswith("[B044] nothing can be written at ")
    assert "Read-only file system" in failed.message
