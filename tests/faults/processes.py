"""Commands in processes of their own that cost no import: a server that has torch loaded forks them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl import checkpoint
from medmtl.cli import main
from medmtl.files import sha256_file
from medmtl.run_folder import RunFolder
from tests.conftest import TINY

FAST: dict[str, Any] = {**TINY, "plan.max_width": 4, "plan.spacing": [6, 6, 6], "plan.shape": [8, 8, 8]}
SHORT: dict[str, Any] = {**FAST, "training.steps": 24, "training.checkpoint_every": 3, "plan.workers": 1}

CONTEXT = multiprocessing.get_context("forkserver")
# the optimiser imports torch._dynamo when it is made, which takes longer than all else
CONTEXT.set_forkserver_preload(["pytest", "torch._dynamo", "medmtl.api", __name__])


@dataclass(frozen=True)
class Child:
    """A command at work.

    Attributes:
        process: its process.
        output: file of all that it prints.
    """

    process: Any
    output: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def is_running(self) -> bool:
        return self.process.exitcode is None

    def wait(self, seconds: float = 120) -> int:
        """The exit code; minus the signal that killed it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            for pid in [*descendants(self.pid), self.pid]:
                end(pid)
            raise AssertionError(f"not ended within {seconds} s: {self.said()}")
        return int(self.process.exitcode)

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""


def start(arguments: Sequence[str | Path], output: Path, before: Callable[[], None] | None = None) -> Child:
    """Run a command.

    Args:
        arguments: as after ``medmtl``.
        output: where its words go.
        before: a function of a module, called first in the new process.
    """
    process = CONTEXT.Process(target=_command, args=([str(word) for word in arguments], output, before))
    process.start()
    return Child(process, output)


def start_training(
    config: Path,
    run: Path,
    overrides: Mapping[str, Any],
    *,
    resume: bool = False,
    before: Callable[[], None] | None = None,
) -> Child:
    """Run ``medmtl train`` on the CPU."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
    settings = [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]
    words: list[str | Path] = [
        "train",
        config,
        "--out",
        run,
        "--device",
        "cpu",
        *settings,
        *(["--resume"] if resume else []),
    ]
    return start(words, run.with_suffix(".txt"), before)


def _command(arguments: list[str], output: Path, before: Callable[[], None] | None) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    if before is not None:
        before()
    sys.exit(main(arguments))


def wait_until(condition: Callable[[], Any], child: Child | None = None, seconds: float = 60) -> Any:
    """The condition's value once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if child is not None and not child.is_running():
            raise AssertionError(f"ended with {child.wait()}: {child.said()}")
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)
    return value


def steps_done(run: Path) -> int:
    """Steps in the log of a run, also while it is being written."""
    with suppress(FileNotFoundError):
        return (run / "log.jsonl").read_bytes().count(b'"losses"')
    return 0


def committed(run: Path) -> int:
    """The newest committed step; 0 for none."""
    with suppress(FileNotFoundError):
        return max((int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*")), default=0)
    return 0


def descendants(pid: int) -> list[int]:
    """Processes below one, without those that are dead and not yet waited for."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.parent.name)] = int(parent)
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def state(pid: int) -> str:
    """The kernel's letter for it: ``T`` stopped, ``Z`` dead and not yet waited for, empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def no_survivors(pids: Sequence[int], seconds: float = 20) -> Iterator[None]:
    """All of these processes are gone soon after the block."""
    yield
    wait_until(lambda: all(state(pid) in ("", "Z") for pid in pids), seconds=seconds)


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of the last checkpoint's files."""
    last = run / "checkpoints" / (run / "checkpoints" / "last").read_text().strip()
    return {path.name: sha256_file(path) for path in sorted(last.iterdir())}


def records(run: Path) -> list[dict[str, Any]]:
    """The log without its times."""
    kept = []
    for record in RunFolder.open(run).read_log():
        record.pop("seconds", None)
        if "timing" not in record:
            kept.append(record)
    return kept


def assert_ends_as(alone: Path, config: Path, run: Path, overrides: Mapping[str, Any] = SHORT) -> None:
    """Resumed, a run ends with the bytes of the one that nothing happened to, and without leftovers."""
    child = start_training(config, run, overrides, resume=True)
    assert child.wait() == 0, child.said()
    assert fingerprint(run) == fingerprint(alone)
    assert records(run) == records(alone)
    assert leftovers(run) == []


def newest_whole(run: Path) -> int:
    """The step of the newest commit, all of whose hashes match."""
    stored = checkpoint.load(run / "checkpoints")
    assert stored is not None
    assert stored.step == committed(run), "the newest commit is damaged"
    return stored.step


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders anywhere below."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if ".tmp-" in path.name]
