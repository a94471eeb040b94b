"""A process whose disk can be made to fail: system calls by strace, limits by prlimit, small disks by mounts.

One process serves a whole test file, because importing torch costs seconds. It runs lines of Python that it is given.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60

SERVER = """
import json, logging, os, sys
from pathlib import Path
import torch
from medmtl import checkpoint
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.prepared import Preparation
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

def save(folder, step, size=3):
    tensors = {"model": {"w": torch.full((size,), float(step))}, "optimiser": {"w.exp_avg": torch.ones(size)}}
    checkpoint.save(Path(folder), step, tensors, {"seen": step})

def case(image):
    return Case("c1", "p1", None, 7, {"t1": Path(image)})

def cache(folder):
    return PreparedCache(Path(folder), Preparation((1.0, 1.0, 1.0), ("t1",), {}))

scope = dict(globals())
for line in sys.stdin:
    scope["result"] = None
    try:
        exec(json.loads(line), scope)
        answer = {"result": scope["result"]}
    except Exception as error:
        answer = {"error": type(error).__name__, "errno": getattr(error, "errno", None), "message": str(error)}
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()
"""


@dataclass(frozen=True)
class Answer:
    """What the process said of the lines that it ran."""

    result: Any = None
    error: str | None = None
    errno: int | None = None
    message: str = ""


class Worker:
    """The process.

    Attributes:
        mounts: whether it has a mount table of its own, and so may mount small disks.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "stderr.txt"
        self.trace = folder / "strace.txt"
        self.mounts = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
        command = [sys.executable, "-c", SERVER]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "-m", *command] if self.mounts else command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )

    def run(self, code: str) -> Answer:
        """Run lines of Python; their ``result`` comes back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log.read_text()
        return Answer(**json.loads(line))

    @contextmanager
    def traced(self, calls: str, *faults: str, path: Path | None = None) -> Iterator[Path]:
        """Trace the named system calls from now on, of one file only where a path is given.

        Each fault is one ``-e inject=`` of strace.
        """
        if shutil.which("strace") is None:
            pytest.skip("needs strace")
        options = [f"--inject={fault}" for fault in faults] + ([f"--trace-path={path}"] if path else [])
        self.run("pass")  # it is up, and waits for the next line
        tracer = subprocess.Popen(
            ["strace", "-f", "-y", "-o", str(self.trace), f"--trace={calls}", *options, "-p", str(self._process.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._wait_for(tracer)
            yield self.trace
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=SECONDS)

    def _wait_for(self, tracer: subprocess.Popen[str]) -> None:
        end = time.monotonic() + SECONDS
        while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{self._process.pid}/status").read_text():
            if tracer.poll() is not None:
                pytest.skip(f"strace may not attach here: {tracer.communicate()[1].strip()}")
            assert time.monotonic() < end
            time.sleep(0.01)

    @contextmanager
    def limited(self, limit: int, value: int) -> Iterator[None]:
        """Lower one of the process's limits (``resource.RLIMIT_...``) for a while."""
        old = resource.prlimit(self._process.pid, limit, (value, resource.prlimit(self._process.pid, limit)[1]))
        try:
            yield
        finally:
            resource.prlimit(self._process.pid, limit, old)

    def memory_in_use(self) -> int:
        """Bytes of address space."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.partition("VmSize:")[2].split()[0])

    @contextmanager
    def small_disk(self, folder: Path, options: str) -> Iterator[Path]:
        """A disk of its own at ``folder``, seen by the process only; gives the path by which the test sees it."""
        folder.mkdir()
        mount = f"subprocess.run(['mount', '-t', 'tmpfs', '-o', {options!r}, 'none', {str(folder)!r}], check=True)"
        if not self.mounts or self.run(f"import subprocess; {mount}").error is not None:
            pytest.skip("needs the right to mount")
        try:
            yield Path(f"/proc/{self._process.pid}/root{folder}")
        finally:
            self.run(f"subprocess.run(['umount', '-l', {str(folder)!r}], check=True)")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def immutable(folder: Path) -> Iterator[None]:
    """A folder that not even root may change."""
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("needs chattr +i")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


def name(number: int) -> str:
    """Of an errno, as strace wants it."""
    return errno.errorcode[number]
