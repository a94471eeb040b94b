"""A committed checkpoint is whole, loads bit for bit, and survives every way of dying that we can simulate."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medmtl import checkpoint, files
from medmtl.errors import NumericError
from tests.checkpoint.checkpoints import bits, commit, flip, group, newest, steps

MUTATING = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate")


def test_layout_record_and_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    path = checkpoint.save(folder, 250, group(250), {"seen": 250})
    assert path == folder / "step-000250"
    assert (folder / "last").read_text() == "step-000250\n"
    assert sorted(os.listdir(path)) == ["commit.json", "model.safetensors", "optimiser.safetensors", "state.json"]
    record = json.loads((path / "commit.json").read_text())
    assert (record["schema"], record["step"]) == (1, 250)
    for name, entry in record["files"].items():
        assert entry == {"bytes": (path / name).stat().st_size, "sha256": files.sha256_file(path / name)}
    modes = {stat.S_IMODE(found.stat().st_mode) for found in folder.rglob("*")} | {stat.S_IMODE(folder.stat().st_mode)}
    assert modes == {0o600, 0o700}
    loaded = checkpoint.load(folder)
    assert loaded is not None
    assert loaded.sha256["model"] == files.sha256_file(path / "model.safetensors")
    again = checkpoint.save(tmp_path / "again", 250, group(250), {"seen": 250})
    assert files.sha256_file(again / "commit.json") == files.sha256_file(path / "commit.json")


def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 7
    tensors = {
        "float32": base,
        "shared": base[0],
        "transposed": base.transpose(0, 2),
        "expanded": torch.tensor([0.1]).expand(5),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "bf16": base.to(torch.bfloat16),
        "fp16": base.to(torch.float16),
        "float64": base.double() / 3,
        "int64": torch.tensor(2**53 + 1),
        "scalar": torch.tensor(0.1),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "minus_zero": torch.tensor(-0.0),
        "parameter": nn.Parameter(torch.rand(3)),
    }
    checkpoint.save(tmp_path, 1, {"model": tensors}, {})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.tensors["model"].keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = loaded.tensors["model"][name]
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype), name
        assert bits(found) == bits(tensor), name


def test_nothing_committed_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "absent") is None
    (tmp_path / ".step-000001.tmp-7").mkdir()
    assert checkpoint.load(tmp_path) is None


@pytest.mark.covers("F45")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, value: float) -> None:
    commit(tmp_path, 1)
    before = sorted(tmp_path.rglob("*"))
    bad = {"fine": torch.ones(1), "trunk.w": torch.tensor([1.0, value])}
    for name in ("model", "average"):
        with pytest.raises(NumericError, match=r"trunk\.w"):
            checkpoint.save(tmp_path, 2, {**group(2), name: bad}, {})
    with pytest.raises(NumericError, match="state"):
        checkpoint.save(tmp_path, 2, group(2), {"loss": value})
    assert sorted(tmp_path.rglob("*")) == before


def test_arguments_that_fit_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        commit(tmp_path, 1, keep=1)
    with pytest.raises(ValueError, match="cannot name"):
        checkpoint.save(tmp_path, 1, {"../model": {}}, {})
    for step in (-1, 10**12):
        with pytest.raises(ValueError, match="cannot name"):
            checkpoint.save(tmp_path, step, group(1), {})


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    commit(tmp_path, 999_999, 1_000_000)
    assert newest(tmp_path) == 1_000_000


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    commit(tmp_path, 1, 2, 3, 4)
    assert steps(tmp_path) == ["step-000003", "step-000004"]
    commit(tmp_path, 5, 6, keep=3)
    assert steps(tmp_path) == ["step-000004", "step-000005", "step-000006"]


def test_pruning_counts_whole_checkpoints_only(tmp_path: Path) -> None:
    commit(tmp_path, 1, 2)
    flip(tmp_path / "step-000002" / "model.safetensors", -1)
    commit(tmp_path, 3)
    assert steps(tmp_path) == ["step-000001", "step-000002", "step-000003"]
    flip(tmp_path / "step-000003" / "model.safetensors", -1)
    assert newest(tmp_path) == 1


def test_failing_to_prune_does_not_undo_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit(tmp_path, 1, 2)

    def fail(*_: object) -> None:
        raise OSError("busy")

    monkeypatch.setattr(shutil, "rmtree", fail)
    commit(tmp_path, 3)
    assert "could not be removed" in caplog.text
    assert newest(tmp_path) == 3


def test_leftovers_of_ours_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".step-000001.tmp-123", ".step-000001.tmp-x", "step-1", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".step-000002.tmp-9").symlink_to(tmp_path / "notes")
    commit(tmp_path, 5)
    assert steps(tmp_path) == [".step-000001.tmp-x", "notes", "step-000005", "step-1"]
    assert (tmp_path / "notes" / "file").exists()


def test_a_whole_step_is_kept_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    commit(tmp_path, 1, 2)
    before = (tmp_path / "step-000002" / "commit.json").stat().st_ino
    checkpoint.save(tmp_path, 2, group(99), {"seen": 99})
    assert (tmp_path / "step-000002" / "commit.json").stat().st_ino == before
    assert newest(tmp_path) == 2
    flip(tmp_path / "step-000002" / "state.json", 3)
    assert newest(tmp_path) == 1
    commit(tmp_path, 2)
    assert newest(tmp_path) == 2


class Killed(BaseException):
    """Stands for SIGKILL: nothing that would touch the disk works after it, so no cleaning up either."""


class Fault:
    """Counts calls that change the disk; from call ``at`` on (``kill``) or at it (``error``) they fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, kind: str) -> None:
        self.at, self.kind, self.calls = at, kind, 0
        for name in MUTATING:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return function(*args, **kwargs)
            self.calls += 1
            if self.kind == "kill" and self.calls >= self.at:
                raise Killed
            if self.kind == "error" and self.calls == self.at:
                raise OSError(28, "no space left on device")
            return function(*args, **kwargs)

        return call


def committed_under(fault_at: int, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, int]:
    with monkeypatch.context() as patch:
        fault = Fault(patch, fault_at, kind)
        try:
            commit(folder, 3)
        except (Killed, OSError):
            return False, fault.calls
    return True, fault.calls


@pytest.mark.parametrize("kind", ["kill", "error"])
@pytest.mark.parametrize("start", ["nothing", "two", "two and a damaged third"])
def test_dying_at_any_change_of_the_disk_keeps_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, start: str
) -> None:
    # What is written in which order counts here; waiting for the disk would only be slow.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    first = tmp_path / "first"
    first.mkdir()
    if start != "nothing":
        commit(first, 1, 2)
    if start == "two and a damaged third":
        shutil.copytree(first / "step-000002", first / "step-000003")
    _, count = committed_under(0, "none", Path(shutil.copytree(first, tmp_path / "dry")), monkeypatch)
    assert count > 20
    for at in range(1, count + 1):
        folder = Path(shutil.copytree(first, tmp_path / f"{at}"))
        done, _ = committed_under(at, kind, folder, monkeypatch)
        if start == "nothing" and not done:
            assert checkpoint.load(folder) is None or newest(folder) == 3
        else:
            assert newest(folder) in ((3,) if done else (2, 3))
        if kind == "error" and start != "two and a damaged third":
            assert not [name for name in os.listdir(folder) if name.startswith(".step-000003")]
        commit(folder, 4)
        assert newest(folder) == 4
        assert not [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.covers("F62")
def test_files_then_folder_are_synced_then_renamed_then_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    rename = os.rename

    def spy(old: Path, new: Path) -> None:
        events.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", lambda opened: events.append(Path(os.readlink(f"/proc/self/fd/{opened}")).name))
    monkeypatch.setattr(os, "rename", spy)
    commit(tmp_path, 1)
    written = ["model.safetensors", "optimiser.safetensors", "state.json", "commit.json"]
    assert events[:7] == [*written, f".step-000001.tmp-{os.getpid()}", "rename", tmp_path.name]


@pytest.mark.covers("F26")
def test_a_disk_that_lies_is_caught_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, 1)
    write = os.write

    def lie(descriptor: int, data: memoryview) -> int:
        write(descriptor, data[: len(data) // 2])
        return len(data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lie)
        with pytest.raises(OSError, match="read back"):
            commit(tmp_path, 2)
    assert steps(tmp_path) == ["step-000001"]
    assert newest(tmp_path) == 1
