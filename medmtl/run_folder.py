"""The run folder: where everything of a run lies, and how it comes to be there whole.

Made beside its place and renamed into it, so that a run exists with all of its files or not at all. One process at a
time writes to it, under its lock; a log line is appended with one write.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medmtl import checkpoint
from medmtl import config as configuration
from medmtl.config import Config
from medmtl.data.split import Splits
from medmtl.errors import ArtefactError, BusyRunError, InputError, WorkError
from medmtl.files import (
    RunLock,
    append_line,
    fsync_file,
    fsync_folder,
    make_private_folder,
    read_bytes,
    read_json,
    remove_leftovers,
    write_atomic,
    write_json,
    write_new,
)
from medmtl.planning import Plan

MAX_JSON_BYTES = 1 << 28
MAX_LOG_BYTES = 1 << 30
PACKAGES = ("medmtl", "torch", "monai", "numpy", "nibabel", "scipy", "scikit-learn", "safetensors")

_FOLD = re.compile(r"fold-([0-9]+)")

_log = logging.getLogger(__name__)


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
    def refuse_place(out: Path, *inputs: Path) -> None:
        """Refuse a place where a run must not be made.

        Args:
            out: where it would be.
            inputs: files that are read, such as the cohort's table, or folders.

        Raises:
            InputError: if it is a link, exists and is not empty, holds an input or the home folder, or is a repository.
        """
        place = out.resolve()
        folders = [path if path.is_dir() else path.parent for path in (path.resolve() for path in inputs)]
        if (
            any(folder.is_relative_to(place) for folder in (*folders, Path.home().resolve()))
            or (place / ".git").exists()
        ):
            raise InputError(f"{out} cannot become a run folder: it is or holds the cohort, your home or a repository")
        if out.is_symlink():
            raise InputError(f"{out} is a link; give the folder itself as --out")
        if _is_taken(place):
            raise InputError(f"{out} exists and is not empty; choose another --out, or --resume it")

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
        """Make a run folder appear complete, by rename; it is on disk when this returns.

        Args:
            out: its place; call :meth:`refuse_place` before the work that leads here.
            config: the resolved configuration.
            plan, splits, findings: as JSON.
            manifest: ``fold``, ``seed``, ``device`` and hashes; the versions are added, and the names of environment
                variables that could change how Python or MONAI behave.

        Raises:
            InputError: if ``out`` exists and is not empty.
            WorkError: if it cannot be put there for another reason.
        """
        # Past all links: the relative paths of config.yaml are read from where the folder really lies.
        out = out.resolve()
        make_private_folder(out.parent)
        staged = out.parent / f".{out.name}.tmp-{os.getpid()}"
        _remove_dead_stages(out)
        staged.mkdir(mode=0o700)
        try:
            with RunLock(staged):
                _fill(RunFolder(staged), configuration.dump(config, out), plan, splits, findings, manifest)
                os.rename(staged, out)
        except OSError as error:
            if _is_taken(out):
                raise InputError(f"{out} exists and is not empty; choose another --out") from None
            raise WorkError(f"{out} could not be made: {error.strerror}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        fsync_folder(out.parent)
        return RunFolder(out)

    @staticmethod
    def open(path: Path) -> RunFolder:
        """An existing run.

        Raises:
            InputError: if it is none; what is missing is named.
        """
        run = RunFolder(path.absolute())
        if not path.is_dir():
            raise InputError(f"{path} is no run folder: there is no folder of that name")
        missing = [f.name for f in (run.config, run.plan, run.splits, run.manifest) if not f.is_file()]
        if missing:
            hint = "; give one of the folds in it" if _folds(path) else ""
            raise InputError(f"{path} is no run folder: it has no {', '.join(missing)}{hint}")
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
        return stored.sha256["average" if "average" in stored.tensors else "model"]

    def is_finished(self) -> bool:
        """Whether the last planned step was committed."""
        stored = checkpoint.load(self.checkpoints)
        return stored is not None and stored.step == self.load_plan().steps

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against other processes, and remove what a killed one left half-written.

        Raises:
            BusyRunError: if one is training it.
        """
        with RunLock(self.path):
            remove_leftovers(self.path)
            yield

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to ``log.jsonl``; what is not finite is written as null."""
        append_line(self.log_file, json.dumps(_finite(record), allow_nan=False))

    def sync_log(self) -> None:
        """Wait until the log is on disk. For a commit: what leads to a checkpoint must not be lost after it."""
        fsync_file(self.log_file)

    def read_log(self) -> list[dict[str, Any]]:
        """All records; lines that a kill or a full disk left torn are left out, and counted in a warning."""
        records: list[dict[str, Any]] = []
        lines = read_bytes(self.log_file, limit_bytes=MAX_LOG_BYTES).decode("ascii", "replace").splitlines()
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                records.append(record)
        if len(records) < len(lines):
            _log.warning("%s: %d damaged lines are left out", self.log_file, len(lines) - len(records))
        return records

    def truncate_log(self, step: int) -> None:
        """Drop records beyond ``step``, so that a resumed log equals the uninterrupted one. Hold the lock."""
        kept = [record for record in self.read_log() if record.get("step", 0) <= step]
        write_atomic(self.log_file, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def evaluation(self, split: str) -> Path:
        """Folder of a split's evaluation."""
        return self.path / "evaluation" / split


def open_folds(path: Path) -> list[RunFolder]:
    """The run at ``path``, or the folds in it, in the order of their numbers.

    Raises:
        InputError: if it is neither, or one of the folds is no run.
    """
    return [RunFolder.open(fold) for fold in _folds(path)] or [RunFolder.open(path)]


def _folds(path: Path) -> list[Path]:
    entries = path.iterdir() if path.is_dir() else ()
    numbered = [(int(match[1]), entry) for entry in entries if (match := _FOLD.fullmatch(entry.name))]
    return [entry for _, entry in sorted(numbered)]


def _fill(
    run: RunFolder,
    config: str,
    plan: Mapping[str, Any],
    splits: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
) -> None:
    write_new(run.config, config.encode())
    write_json(run.plan, plan)
    write_json(run.splits, splits)
    write_json(run.findings, findings)
    write_json(run.manifest, {**manifest, "versions": _versions(), "environment": _environment()})
    write_new(run.log_file, b"")
    make_private_folder(run.checkpoints)


def _is_taken(place: Path) -> bool:
    return place.exists() and (not place.is_dir() or any(place.iterdir()))


def _remove_dead_stages(out: Path) -> None:
    """Remove what killed processes left beside ``out``; a living one holds the lock of its own."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.tmp-[0-9]+")
    for stage in [entry for entry in out.parent.iterdir() if pattern.fullmatch(entry.name)]:
        with suppress(BusyRunError), RunLock(stage):
            shutil.rmtree(stage, ignore_errors=True)


def _environment() -> list[str]:
    """Names only: a value may hold a path or a secret."""
    return sorted(name for name in os.environ if name == "PYTHONPATH" or name.startswith(("MEDMTL_", "MONAI_")))


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
