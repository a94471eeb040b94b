"""Cohorts as planning sees them, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmtl.build import build_tasks
from medmtl.config import Config, load
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.volume import Grid
from medmtl.device import Device
from medmtl.networks.cost import Towers
from medmtl.planning import CaseFacts, Plan, make_plan
from medmtl.planning.memory import Budget

CPU = Device("cpu", bf16=False, cores=2)
GPU = Device("cuda", bf16=True, cores=8)
TEXT = """
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: patient_id, channels: {t1: image}}
tasks:
  lesion: {kind: segmentation, column: mask, labels: {core: 1}}
  grade: {kind: classification, column: grade, classes: [low, high]}
training: {steps: 10}
"""
SMALL = ((33, 40, 30), (28, 50, 20))
LARGE = ((160, 160, 160),)


def configured(folder: Path, **overrides: Any) -> Config:
    """The configuration above; ``plan__batch=2`` stands for ``plan.batch``."""
    path = folder / "config.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return load(path, {key.replace("__", "."): value for key, value in overrides.items()})


def fingerprint(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Fingerprint:
    return Fingerprint(Grid(shape, np.diag([*spacing, 1.0])), {}, {})


def planned(config: Config, *prints: Fingerprint, device: Device = CPU, training_cases: int = 100) -> Plan:
    return make_plan(config, build_tasks(config), prints, training_cases, device)


def budget_of(plan: Plan, precision: str = "fp32", gigabytes: float = 8.0, outputs: int = 2) -> Budget:
    """The budget of a plan's network on the CPU, with the decoder and the two classes of the configuration above."""
    return Budget(plan.network, Towers(1, 1), outputs, precision, CPU, round(gigabytes * 1e9))


def scan(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), **changed: float) -> CaseFacts:
    values = {"min": 0.0, "mean": 100.0, "std": 10.0, "p005": 5.0, "p995": 200.0, "nonzero_fraction": 0.9, **changed}
    return CaseFacts(Grid((8, 8, 8), np.diag([*spacing, 1.0])), (values,))


def facts(*scans: CaseFacts) -> tuple[Sequence[CaseFacts], dict[str, list[Any]]]:
    mask = {"voxels": 512, "counts": {1: 20}}
    return scans, {"lesion": [mask] * 2, "grade": ["low", "low", "high"]}
