"""A whole small experiment through the command line, in a process of its own, and the hashes of all it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl.files import sha256_bytes
from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
# the commands one after the other in one process, because importing torch takes longer than all of them
SCRIPT = """\
import json, sys
from medmtl.cli import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    if code:
        sys.exit(code)
"""


def experiment(config: Path, out: Path) -> list[list[str]]:
    """Train, evaluate and predict; the words of each command."""
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    table = str(config.with_name("cohort.csv"))
    return [
        ["train", str(config), "--out", str(out / "run"), "--device", "cpu", *settings],
        ["evaluate", str(out / "run"), "--device", "cpu"],
        ["predict", str(out / "run"), table, "--out", str(out / "prediction"), "--device", "cpu"],
    ]


def run(
    commands: Sequence[Sequence[str]],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run commands of medmtl in one new process, in a working folder; ``prefix`` is a program that starts it."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        timeout=300,
    )


def fingerprint(out: Path) -> dict[str, str]:
    """Hash of every file below ``out`` but the cache and the lock; of the log without times and memory used."""
    hashes = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and path.name != ".lock" and not name.startswith(".medmtl-cache/"):
            data = path.read_bytes()
            if path.name == "log.jsonl":
                data = _untimed_log(data)
            hashes[name] = sha256_bytes(data)
    return hashes


def _untimed_log(log: bytes) -> bytes:
    records = [json.loads(line) for line in log.splitlines()]
    kept = [{key: value for key, value in record.items() if key not in ("seconds", "timing")} for record in records]
    return json.dumps(kept).encode()
