"""A measurement is a process of its own: what it answers, how long it takes, and what it and its children hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PAUSE = 0.5  # seconds between two looks at the memory of the processes: a look takes some milliseconds for each
LOOKS = 10  # in a row at which a process must not compute to be idle
SHOWN = 15  # last lines of a process that failed


def call(program: Sequence[str | Path], request: Mapping[str, Any], log: Path, **variables: str) -> dict[str, Any]:
    """Run a program that takes a request and the name of a file for its answer, both as words.

    Args:
        program: the first words.
        request: as JSON the next word.
        log: gets what it prints; the answer lies beside it.
        variables: of the environment, beside those of this process.

    Returns:
        The answer, with ``wall``, the seconds of the whole process, and ``tree_bytes``, the most that it and its
        children held at one of the looks.

    Raises:
        SystemExit: if it fails; its last lines are said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    answer = log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    words = [*map(str, program), json.dumps(request), str(answer)]
    begin, most = time.perf_counter(), 0
    with log.open("w") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **variables}, start_new_session=True
        )
        try:
            while process.returncode is None:
                most = max(most, group_bytes(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PAUSE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode or not answer.exists():
        last = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN:])
        raise SystemExit(f"{program[-1]} ended with {process.returncode}; {log} ends:\n{last}")
    return {**json.loads(answer.read_text()), "wall": time.perf_counter() - begin, "tree_bytes": most}


def group_bytes(leader: int) -> int:
    """Bytes of a process and all that it started: a page that several of them hold is counted once.

    Those of files count as the largest share of one process: how many others on the machine use them does not matter.
    """
    own, files = 0, 0
    for number in members(leader):
        held = fields_of(Path(f"/proc/{number}/smaps_rollup"))
        own += held.get("Pss_Anon", 0) + held.get("Pss_Shmem", 0)
        files = max(files, held.get("Rss", 0) - held.get("Anonymous", 0))
    return own + files


def group_seconds(leader: int) -> float:
    """Processor time of a process and all that it started, those that have ended included."""
    # of the process itself and of its ended children, each in its own code and in the kernel
    return sum(sum(map(int, fields[11:15])) for fields in members(leader).values()) / os.sysconf("SC_CLK_TCK")


def settle() -> None:
    """Wait until no process that this one started computes: its loaders have made what they may ahead."""
    quiet = 0
    while quiet < LOOKS:
        states = [fields[0] for name, fields in members(os.getpgrp()).items() if name != str(os.getpid())]
        quiet = 0 if {"R", "D"} & set(states) else quiet + 1
        time.sleep(0.1)


def members(leader: int) -> dict[str, list[str]]:
    """Number of every process of a group that lives -> what the kernel says of it, from its state on."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # the name in brackets may hold anything
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == leader:
                    found[entry.name] = fields
    return found


def fields_of(file: Path) -> dict[str, int]:
    """Sizes in a file of ``/proc``, in bytes; none where the process has just ended."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith(" kB")}


def measured(
    file: Path, wanted: Iterable[Mapping[str, Any]], measure: Callable[..., Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """All rows of a file, which keeps what earlier calls have measured and gets what is missing as it comes.

    Args:
        file: of one JSON object a line.
        wanted: what tells a row from the others.
        measure: takes that as arguments and gives the rest of the row.
    """
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for one in wanted:
        if not any(one.items() <= row.items() for row in rows):
            rows.append({**one, **measure(**one)})
            with file.open("a") as out:
                out.write(json.dumps(rows[-1]) + "\n")
    return rows


def peak_bytes() -> int:
    """Most memory so far of this process; unlike ``ru_maxrss`` it leaves out what the one that started it held."""
    return fields_of(Path("/proc/self/status"))["VmHWM"]
