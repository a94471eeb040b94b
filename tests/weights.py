"""The weights of a run, to compare runs by."""

from __future__ import annotations

from pathlib import Path

from medmtl.checkpoint import load


def weights_sha256(run: Path) -> str:
    """Hash of the weights that evaluation and prediction use: the average where there is one."""
    stored = load(run / "checkpoints")
    assert stored is not None
    return stored.sha256["average" if "average" in stored.tensors else "model"]
