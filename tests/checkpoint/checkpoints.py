"""Small checkpoints to save, damage and compare."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from medmtl import checkpoint


def group(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "model": {"w": torch.full((2, 3), float(step)), "n": torch.tensor(step)},
        "optimiser": {"w.exp_avg": torch.full((2, 3), 0.1 * step)},
    }


def commit(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        checkpoint.save(folder, step, group(step), {"seen": step}, keep=keep)


def newest(folder: Path) -> int:
    loaded = checkpoint.load(folder)
    assert loaded is not None
    assert loaded.state == {"seen": loaded.step}
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((2, 3), float(loaded.step)))
    return loaded.step


def steps(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != "last")


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x80
    path.write_bytes(bytes(data))


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
