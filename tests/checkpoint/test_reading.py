"""What is not exactly what was written is not used: the one before it is, and that is said."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from medmtl import checkpoint, files
from medmtl.errors import ArtefactError
from tests.checkpoint.checkpoints import commit, flip, newest

covers = pytest.mark.covers


@covers("B148", "F54")
@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json", "commit.json"])
def test_any_flipped_byte_falls_back_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    commit(tmp_path, 1, 2)
    path = tmp_path / "step-000002" / name
    for position in range(0, path.stat().st_size, 5):
        flip(path, position)
        caplog.clear()
        assert newest(tmp_path) == 1
        assert "step-000002" in caplog.text
        flip(path, position)
    assert newest(tmp_path) == 2


@covers("B148", "F54")
@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json"])
def test_of_some_groups_only_the_first_is_read_and_all_are_compared(tmp_path: Path, name: str) -> None:
    commit(tmp_path, 1, 2)
    for wanted, found in ((("average", "model"), {"model"}), (("optimiser", "model"), {"optimiser"}), (("a",), set())):
        loaded = checkpoint.load(tmp_path, wanted)
        assert loaded is not None and set(loaded.tensors) == set(loaded.sha256) == found
        assert loaded.state == {"seen": 2}
    flip(tmp_path / "step-000002" / name, 3)
    loaded = checkpoint.load(tmp_path, ("average", "model"))
    assert loaded is not None and loaded.step == 1


def rerecord(folder: Path, change: Callable[[dict[str, Any]], object] = lambda record: None) -> None:
    """Make a commit record agree with the files, then change it: what a forger would do."""
    record = json.loads((folder / "commit.json").read_text())
    for path in folder.iterdir():
        if path.name != "commit.json":
            record["files"][path.name] = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    change(record)
    (folder / "commit.json").write_text(json.dumps(record))


def elsewhere(path: Path) -> None:
    path.symlink_to(path.rename(path.parents[1] / "elsewhere"))


def forge(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    rerecord(path.parent)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def file_for_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def another_step(path: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(path.with_name("step-000001"), path)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def stored(*offsets: list[int]) -> bytes:
    """A file whose header claims these places for its tensors."""
    header = json.dumps({f"w{i}": {"dtype": "F32", "shape": [1], "data_offsets": o} for i, o in enumerate(offsets)})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(8)


def twice_the_same_name() -> bytes:
    entry = '"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{entry},{entry}}}".encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def text_for_number(record: dict[str, Any]) -> None:
    record["files"]["state.json"]["bytes"] = "9"


def one_key_more(record: dict[str, Any]) -> None:
    record["files"]["state.json"]["path"] = "/x"


NAN_WEIGHT = safetensors.torch.save({"w": torch.tensor([float("nan")])})
HUGE_HEADER = struct.pack("<Q", 1 << 60) + NAN_WEIGHT[8:]
DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated": ("B147", lambda step: os.truncate(step / "model.safetensors", 20)),
    "longer": ("B147", lambda step: os.truncate(step / "model.safetensors", 1000)),
    "one byte more": ("B147", lambda step: append(step / "model.safetensors")),
    "ten times as large": ("B161", lambda step: os.truncate(step / "model.safetensors", 1 << 40)),
    "record too large": ("B161", lambda step: os.truncate(step / "commit.json", 1 << 40)),
    "record gives no number": ("B160", lambda step: rerecord(step, text_for_number)),
    "forged overlap": ("B149", lambda step: forge(step / "model.safetensors", stored([0, 4], [2, 6]))),
    "forged offset": ("B149", lambda step: forge(step / "model.safetensors", stored([0, 4], [4, 1 << 50]))),
    "empty": ("B147", lambda step: os.truncate(step / "optimiser.safetensors", 0)),
    "extra file": ("B160", lambda step: (step / "model.pt").write_bytes(b"PK")),
    "linked file": ("B159", lambda step: elsewhere(step / "model.safetensors")),
    "linked folder": ("B159", lambda step: elsewhere(step)),
    "fifo": ("B159", lambda step: fifo(step / "state.json")),
    "file for folder": ("B159", file_for_folder),
    "no record": ("B154", lambda step: (step / "commit.json").unlink()),
    "no state": ("B147", lambda step: (step / "state.json").unlink()),
    "another step": ("B148", another_step),
    "newer schema": ("B153", lambda step: rerecord(step, lambda record: record.update(schema=2))),
    "unknown key": ("B160", lambda step: rerecord(step, lambda record: record.update(run="x"))),
    "unknown entry key": ("B160", lambda step: rerecord(step, one_key_more)),
    "path outside": ("B160", lambda step: rerecord(step, lambda record: record["files"].update({"../last": {}}))),
    "foreign file": ("B160", lambda step: forge(step / "model.pt", b"PK")),
    "forged NaN": ("B152", lambda step: forge(step / "model.safetensors", NAN_WEIGHT)),
    "forged length": ("B149", lambda step: forge(step / "model.safetensors", HUGE_HEADER)),
    "forged duplicate": ("B149", lambda step: forge(step / "model.safetensors", twice_the_same_name())),
    "forged state": ("B160", lambda step: forge(step / "state.json", b"[1]")),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=covers(c, "F54", "F55"), id=n) for n, (c, _) in DAMAGES.items()]
)
def test_a_damaged_checkpoint_falls_back_then_all_bad_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    code, damage = DAMAGES[name]
    folder = tmp_path / "checkpoints"
    commit(folder, 1, 2)
    damage(folder / "step-000002")
    assert newest(folder) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"checkpoint step-000002 is not used: [{code}] " in caplog.text
    flip(folder / "step-000001" / "model.safetensors", -1)
    with pytest.raises(ArtefactError, match=rf"^\[{code}\] all 2 checkpoints in .* are damaged; restore them"):
        checkpoint.load(folder)
    assert ArtefactError.exit_code == 7


@covers("B159")
def test_a_linked_checkpoints_folder_is_refused(tmp_path: Path) -> None:
    commit(tmp_path / "real", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ArtefactError, match="link"):
        checkpoint.load(tmp_path / "link")
    with pytest.raises(ArtefactError, match="link"):
        commit(tmp_path / "link", 2)
    assert newest(tmp_path / "real") == 1


def test_a_disk_error_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, 1, 2)

    def fail(*_: object, **__: object) -> bytes:
        raise OSError(5, "disk failed")

    monkeypatch.setattr(files, "read_bytes", fail)
    with pytest.raises(OSError, match="disk failed"):
        checkpoint.load(tmp_path)
