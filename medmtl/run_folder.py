"""The run folder: where everything of a run lies, and how it comes to be there whole."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medmtl import checkpoint
from medmtl import config as configuration
from medmtl.config import Config
from medmtl.data.split import Splits
from medmtl.errors import ArtefactError, InputError, WorkError
from medmtl.files import (
    RunLock,
    append_line,
    make_private_folder,
    read_bytes,
    read_json,
    sha256_file,
    write_atomic,
    write_json,
    write_new,
)
from medmtl.planning import Plan

MAX_JSON_BYTES = 1 << 28
MAX_LOG_BYTES = 1 << 30
LIBRARIES = ("medmtl", "torch", "monai", "numpy", "nibabel", "scipy", "scikit-learn", "safetensors")


class RunFolder:
    """A run on disk; see the contract for what each file holds.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.plan = path / "plan.json"
        self.splits = path / "splits.json"
        self.manifest = path / "manifest.json"
        self.findings = path / "findings.json"
        self.log_file = path / "log.jsonl"
        self.checkpoints = path / "checkpoints"
        self.test_access = path / "test_access.jsonl"

    @staticmethod
    def refuse_place(out: Path, table: Path) -> None:
        """Refuse a place where a run must not be made.

        Raises:
            InputError: if it exists and is not empty, or holds the cohort, the home folder or a repository.
        """
        place = out.absolute().resolve()
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{out} exists and is not empty; choose another --out, or --resume it")
        cohort = table.absolute().resolve().parent
        if place == cohort or place in cohort.parents or place in (Path.home(), Path("/")) or (place / ".git").exists():
            raise InputError(f"{out} cannot become a run folder: it is or holds the cohort, your home or a repository")

    @staticmethod
    def create(
        out: Path,
        *,
        config: Config,
        plan: Mapping[str, Any],
        splits: Mapping[str, Any],
        findings: Sequence[Mapping[str, Any]],
        manifest: Mapping[str, Any],
    ) -> RunFolder:
        """Make a run folder appear complete, by rename.

        Raises:
            InputError: if ``out`` exists and is not empty.
        """
        out = out.absolute()
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = out.parent / f".{out.name}.tmp-{os.getpid()}"
        shutil.rmtree(staged, ignore_errors=True)
        make_private_folder(staged)
        run = RunFolder(staged)
        try:
            write_new(run.config, configuration.dump(config, out).encode())
            write_json(run.plan, plan)
            write_json(run.splits, splits)
            write_json(run.findings, findings)
            write_json(run.manifest, {**manifest, "versions": _versions()})
            write_new(run.log_file, b"")
            make_private_folder(run.checkpoints)
            try:
                staged.rename(out)
            except OSError as error:
                if out.exists() and any(out.iterdir()):
                    raise InputError(f"{out} exists and is not empty; choose another --out") from None
                raise WorkError(f"{out} could not be made: {error.strerror}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return RunFolder(out)

    @staticmethod
    def open(path: Path) -> RunFolder:
        """An existing run.

        Raises:
            InputError: if it is none; what is missing is named.
        """
        run = RunFolder(path.absolute())
        missing = [f.name for f in (run.config, run.plan, run.splits, run.manifest) if not f.is_file()]
        if missing:
            raise InputError(f"{path} is no run folder: it has no {', '.join(missing)}")
        return run

    def load_config(self) -> Config:
        """The resolved configuration."""
        return configuration.load(self.config)

    def load_plan(self) -> Plan:
        """The plan."""
        return Plan.from_json(read_json(self.plan, limit_bytes=MAX_JSON_BYTES))

    def load_splits(self) -> Splits:
        """Who is in which part."""
        return Splits.from_json(read_json(self.splits, limit_bytes=MAX_JSON_BYTES))

    def load_manifest(self) -> dict[str, Any]:
        """Fold, hashes and versions."""
        data = read_json(self.manifest, limit_bytes=MAX_JSON_BYTES)
        if not isinstance(data, dict) or "fold" not in data or "table_sha256" not in data:
            raise ArtefactError(f"{self.manifest} is not a manifest of this version")
        return data

    def weights_sha256(self) -> str:
        """Hash of the weights that evaluation and prediction use: the average where there is one.

        Raises:
            ArtefactError: if nothing was committed yet.
        """
        stored = checkpoint.load(self.checkpoints)
        if stored is None:
            raise ArtefactError(f"{self.path.name} has no checkpoint yet; train it first")
        name = "average" if "average" in stored.tensors else "model"
        return sha256_file(self.checkpoints / f"step-{stored.step:06d}" / f"{name}.safetensors")

    def is_finished(self) -> bool:
        """Whether the last planned step was committed."""
        stored = checkpoint.load(self.checkpoints)
        return stored is not None and stored.step == self.load_plan().steps

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against other processes.

        Raises:
            BusyRunError: if one is training it.
        """
        with RunLock(self.path):
            yield

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to ``log.jsonl``; what is not finite is written as null."""
        append_line(self.log_file, json.dumps(_finite(record), allow_nan=False))

    def read_log(self) -> list[dict[str, Any]]:
        """All records; a torn last line is left out."""
        records = []
        for line in read_bytes(self.log_file, limit_bytes=MAX_LOG_BYTES).decode().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def truncate_log(self, step: int) -> None:
        """Drop records beyond ``step``, so that a resumed log equals the uninterrupted one."""
        kept = [record for record in self.read_log() if record["step"] <= step]
        write_atomic(self.log_file, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def evaluation(self, split: str) -> Path:
        """Folder of a split's evaluation."""
        return self.path / "evaluation" / split


def open_runs(path: Path) -> list[RunFolder]:
    """The run at ``path``, or the folds in it, in the order of their numbers.

    Raises:
        InputError: if it is neither.
    """
    folds = sorted(path.glob("fold-*"), key=lambda p: (len(p.name), p.name)) if path.is_dir() else []
    return [RunFolder.open(fold) for fold in folds] if folds else [RunFolder.open(path)]


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
