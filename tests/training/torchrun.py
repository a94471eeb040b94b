"""Trainings on several processes, started with the environment that torchrun gives them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.processes import Child, start


def start_ranks(
    config: Path,
    run: Path,
    overrides: Mapping[str, Any],
    *,
    size: int = 2,
    resume: bool = False,
    before: Callable[[], None] | None = None,
) -> list[Child]:
    """Start ``medmtl train`` on ``size`` processes of this machine, each of which calls ``before`` first."""
    port = free_port()
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
    settings = [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]
    words = ["train", config, "--out", run, "--device", "cpu", *settings, *(["--resume"] if resume else [])]
    return [
        start(words, run.parent / f"{run.name}-{resume}-{rank}.txt", partial(be, rank, size, port, before))
        for rank in range(size)
    ]


def be(rank: int, size: int, port: int, before: Callable[[], None] | None = None) -> None:
    """Take a place, in a new process, which leads a group of its own as under torchrun."""
    os.setsid()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    if before is not None:
        before()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
