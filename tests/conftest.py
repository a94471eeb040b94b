from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl.evaluation import pictures

pytest_plugins = ["tests.reliability.record"]

TINY: dict[str, Any] = {
    "plan.width": 4,
    "plan.max_width": 8,
    "plan.batch": 2,
    "plan.workers": 0,
    "plan.threads": 1,
    "training.steps": 6,
    "training.checkpoint_every": 2,
}


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Nothing in medmtl may reach the network, so no test may either; sockets between local processes stay allowed."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> None:
    """Whoever starts the tests may have had them ignore Ctrl-C or a lost terminal, and so all that they start."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Pages whose pictures are empty, for who looks at anything else: to draw them is most of an evaluation's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_uri", lambda canvas, kind: f"data:image/{kind},")
        yield


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic cohort of 12 small cases; returns its configuration. Read only."""
    return api.synth(tmp_path_factory.mktemp("tiny") / "cohort", cases=12)


@pytest.fixture(scope="session")
def trained_run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps on the tiny cohort. Read only."""
    return api.train(tiny_cohort, tmp_path_factory.mktemp("runs") / "run", device="cpu", overrides=TINY)
