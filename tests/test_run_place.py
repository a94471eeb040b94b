"""What is given for a run and is none is refused unread."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmtl.cli import main
from medmtl.errors import ArtefactError, InputError
from medmtl.run_place import refuse_model_file, refuse_place

SEEN: list[str] = []
WATCHING: list[bool] = []


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHING and event in ("pickle.find_class", "import", "exec", "compile"):
        SEEN.append(event)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What would run code, as the interpreter's audit tells; a hook cannot be taken out again, so it is switched."""
    if not WATCHING and "hooked" not in globals():
        sys.addaudithook(hook)
        globals()["hooked"] = True
    SEEN.clear()
    WATCHING.append(True)
    try:
        yield SEEN
    finally:
        WATCHING.clear()


def write(path: Path) -> None:
    if path.suffix in (".pt", ".pth", ".ckpt"):
        torch.save({"w": torch.zeros(3)}, path)
    elif path.suffix == ".npy":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(b"\x08\x07\x12" + bytes(100))


@pytest.mark.covers("B150")
@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt", "m.pkl", "m.npy", "m.onnx", "m.safetensors", "model"])
def test_model_files_of_other_programs_are_refused_by_their_first_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "model":
        path.write_bytes(b"\x80\x04\x95" + bytes(100))  # a pickle without an ending
    else:
        write(path)
    with watched() as seen, pytest.raises(ArtefactError, match=r"^\[B150\] .*run folders only"):
        refuse_model_file(path)
    assert seen == []


@pytest.mark.covers("B150")
@pytest.mark.parametrize("command", ["evaluate", "report", "predict"])
def test_commands_refuse_a_model_file_with_code_7(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "m.pt")
    more = ["image.nii.gz", "--out", str(tmp_path / "out")] if command == "predict" else []
    assert main([command, str(tmp_path / "m.pt"), *more]) == 7
    assert capsys.readouterr().err.startswith("error: [B150] ")
    assert os.listdir(tmp_path) == ["m.pt"]


def test_another_file_is_no_model_and_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("schema: 1\n")
    refuse_model_file(tmp_path / "config.yaml")
    assert main(["evaluate", str(tmp_path / "config.yaml")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'config.yaml'} is no run folder, but a file; give the folder that train made as RUN, and "
        "a configuration or an image after it: evaluate RUN --config FILE, predict RUN FILE --out DIR\n"
    )


@pytest.mark.covers("B043")
@pytest.mark.parametrize("inside", ["sub", "evaluation/sub", "checkpoints/deep/sub"])
def test_no_run_is_made_in_another(tmp_path: Path, inside: str) -> None:
    (run := tmp_path / "run").mkdir()
    refuse_place(run / inside)
    (run / "manifest.json").touch()
    refuse_place(run / inside)  # somebody else's file of that name
    (run / "checkpoints").mkdir()
    with pytest.raises(InputError, match=rf"^\[B043\] {run / inside} lies in the run {run}, and no run is made in"):
        refuse_place(run / inside)
    refuse_place(tmp_path / "run-2")


@pytest.mark.covers("B049")
@pytest.mark.parametrize(("mode", "count"), [(0o777, 1), (0o720, 1), (0o755, 0), (0o1777, 0)])
def test_a_folder_open_to_others_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, count: int
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(mode)
    refuse_place(tmp_path / "runs" / "run")
    assert [record.levelno for record in caplog.records] == count * [logging.WARNING]
    assert caplog.text.count("[B049]") == count
