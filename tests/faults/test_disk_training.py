"""A training whose disk fails: the last commit is whole, the cause is said, and a resume ends with the same bytes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medmtl import api, checkpoint, files, run_log
from medmtl.cli import main
from medmtl.errors import NumericError, WorkError
from medmtl.run_folder import RunFolder
from medmtl.training import commit, loop
from medmtl.training.session import Session
from tests.conftest import TINY
from tests.faults.processes import fingerprint

covers = pytest.mark.covers
EVERY_STEP = {**TINY, "training.checkpoint_every": 1}


def newest(run: Path) -> int:
    loaded = checkpoint.load(run / "checkpoints")
    assert loaded is not None
    return loaded.step


def failing(function: Callable[..., Any], number: int, calls: range) -> Callable[..., Any]:
    """The function, but its calls of these numbers (from 0) fail."""
    count = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count - 1 in calls:
            raise OSError(number, os.strerror(number), str(arguments[0]))
        return function(*arguments, **options)

    return call


@covers("F17", "F22")
@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EFBIG, marks=pytest.mark.slow)])
def test_a_commit_that_fails_is_tried_again_at_the_next_interval(
    trained_run: Path,
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    monkeypatch.setattr(files, "write_verified", failing(files.write_verified, number, range(1)))
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY)
    assert f"step 2 could not be committed ({os.strerror(number)}" in caplog.text
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["last", "step-000004", "step-000006"]
    assert fingerprint(tmp_path / "run") == fingerprint(trained_run)


@covers("F17", "F23", "F21")
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, *(pytest.param(other, marks=pytest.mark.slow) for other in (errno.EDQUOT, errno.EIO))]
)
def test_the_third_failure_in_a_row_ends_the_work_and_a_resume_gives_the_same_bytes(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    place = tmp_path / "run"
    # the first commit writes five files; none of the later ones gets past its first
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_verified", failing(files.write_verified, number, range(5, 1000)))
        with pytest.raises(WorkError, match=f"step 4 could not be committed.*{os.strerror(number)}.*--resume"):
            api.train(tiny_cohort, place, device="cpu", overrides=EVERY_STEP)
    assert newest(place) == 1
    assert sorted(os.listdir(place / "checkpoints")) == ["last", "step-000001"]
    api.train(tiny_cohort, place, device="cpu", overrides=EVERY_STEP, resume=True)
    assert fingerprint(place) == fingerprint(trained_run)


@covers("F19")
def test_a_full_log_does_not_end_the_training_before_its_next_commit(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, steps = tmp_path / "run", []
    step = loop.train_step

    def counted(*arguments: Any) -> Any:
        steps.append(arguments[1].step)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        # the first interval writes two lines of steps and one of their validation
        patch.setattr(run_log, "append_line", failing(run_log.append_line, errno.ENOSPC, range(3, 1000)))
        with pytest.raises(WorkError, match=r"could not be committed.*No space left"):
            api.train(tiny_cohort, place, device="cpu", overrides=TINY)
    assert steps[-1] >= 3
    assert newest(place) == 2
    assert [record["step"] for record in RunFolder.open(place).read_log()] == [1, 2, 2]
    api.train(tiny_cohort, place, device="cpu", overrides=TINY, resume=True)
    assert fingerprint(place) == fingerprint(trained_run)


@covers("F29", "F41")
@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_run_folder_that_goes_away_ends_the_work_and_is_not_made_again(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    place, elsewhere = tmp_path / "runs" / "run", tmp_path / "elsewhere"
    step = loop.train_step

    def then_gone(*arguments: Any) -> Any:
        record = step(*arguments)
        if arguments[1].step == 2:
            place.rename(elsewhere)
        return record

    monkeypatch.setattr(loop, "train_step", then_gone)
    if how == "removed":
        # nothing is logged between the loss and the commit
        monkeypatch.setattr(RunFolder, "log", lambda self, record: None)
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    assert main(["train", str(tiny_cohort), "--out", str(place), "--device", "cpu", "--quiet", *settings]) == 8
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert str(place) in said
    assert "put " in said
    assert os.listdir(place.parent) == [".medmtl-cache"]
    assert newest(elsewhere) == 2


@covers("F28")
def test_a_disk_that_turns_read_only_ends_the_work(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_log, "append_line", failing(run_log.append_line, errno.EROFS, range(3, 1000)))
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    assert main(["train", str(tiny_cohort), "--out", str(out), "--device", "cpu", "--quiet", *settings]) == 8
    assert "Read-only file system: " in capsys.readouterr().err
    assert newest(out) == 2


@covers("F45")
def test_weights_that_are_not_finite_are_not_committed(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = commit.save

    def broken(opened: Session, steps_done: int) -> None:
        if steps_done == 4:
            next(opened.learner.model.parameters()).data.view(-1)[0] = float("nan")
        save(opened, steps_done)

    monkeypatch.setattr(loop, "save", broken)
    with pytest.raises(NumericError, match=r"is not finite at step-000004; nothing was saved"):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY)
    assert NumericError.exit_code == 4
    assert newest(tmp_path / "run") == 2


HUNGRY = """
import sys
from pathlib import Path
import torch
from medmtl import checkpoint
Path(sys.argv[2], "cgroup.procs").write_text("0")
held = []
for step in range(1, 10_000):
    checkpoint.save(Path(sys.argv[1]), step, {"model": {"w": torch.full((10_000,), float(step))}}, {})
    held.append(bytearray(b"x" * 16_000_000))
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A group of processes with 300 MB."""
    root = Path("/sys/fs/cgroup/memory")
    group = root / f"medmtl-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("300000000")
    except OSError as error:
        pytest.skip(f"needs a memory cgroup: {error}")
    yield group
    group.rmdir()


@pytest.mark.slow
@covers("F33")
def test_a_process_killed_for_memory_leaves_a_whole_checkpoint(cgroup: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HUNGRY, str(tmp_path / "c"), str(cgroup)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    loaded = checkpoint.load(tmp_path / "c")
    assert loaded is not None
    assert loaded.step > 1
    assert float(loaded.tensors["model"]["w"][-1]) == loaded.step
