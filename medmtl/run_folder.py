"""The run folder: where everything of a run lies, and how it comes to be there whole.

Made beside its place and renamed into it, so that a run exists with all of its files or not at all. One process at a
time writes to it, under its lock; a log line is appended with one write.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medmtl import checkpoint, cohort_list
from medmtl import config as configuration
from medmtl.config import Config
from medmtl.data.formats import strict_yaml
from medmtl.data.split import Splits
from medmtl.device import describe_hardware
from medmtl.disk import why
from medmtl.errors import ArtefactError, BusyRunError, InputError, WorkError
from medmtl.files import (
    fsync_folder,
    json_bytes,
    make_private_folder,
    read_bytes,
    read_json,
    remove_leftovers,
    sha256_bytes,
    write_json,
    write_new,
)
from medmtl.folder_lock import FolderLock
from medmtl.planning import Plan
from medmtl.run_log import RunLog
from medmtl.run_place import folds_in, is_taken, refuse_model_file, warn_of_others

MAX_JSON_BYTES = 1 << 28
MANIFEST_KEYS = {"fold", "table_sha256", "files_sha256", "voxels_sha256", "patients", "trained"}
PACKAGES = ("medmtl", "torch", "monai", "numpy", "nibabel", "scipy", "scikit-learn", "safetensors")

# What a checkpoint may differ in from its run's config.yaml: places, the machine's share, length and use.
NOT_DECISIVE = (
    "cohort.table",
    "cohort.roots",
    "split",
    "cache",
    "inference",
    "primary",
    "plan.workers",
    "plan.memory_gb",
    "training.steps",
    "training.minutes",
    "training.keep",
    "training.checkpoint_every",
    "init.run",
)
# The same of its plan.json: the length, which minutes settle while it is trained, what is only told, and the machine's
# share.
NOT_DECISIVE_IN_PLAN = (
    "steps",
    "minutes",
    "seconds",
    "memory_bytes",
    "disk_bytes",
    "reasons",
    "workers",
    "threads",
)

_log = logging.getLogger(__name__)


class RunFolder:
    """A run on disk; see the contract for what each file holds.

    Args:
        path: of the folder.

    Attributes:
        is_told_unfinished: whether somebody was warned that it is not trained to its end.
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
        self.initial = path / "init"
        self.test_access = path / "test_access.jsonl"
        self.is_told_unfinished = False
        self._place: tuple[int, int] | None = None
        self._log = RunLog(self.log_file)

    @staticmethod
    def create(
        out: Path,
        *,
        config: Config,
        plan: Mapping[str, Any],
        splits: Mapping[str, Any],
        findings: Sequence[Mapping[str, Any]],
        manifest: Mapping[str, Any],
        initial: Mapping[str, torch.Tensor] | None = None,
    ) -> RunFolder:
        """Make a run folder appear complete, by rename; it is on disk when this returns.

        Args:
            out: its place; call :func:`medmtl.run_place.refuse_place` before the work that leads here.
            config: the resolved configuration.
            plan, splits, findings: as JSON.
            manifest: ``fold``, ``seed``, ``device`` and hashes; the versions are added, and the names of environment
                variables that could change how Python or MONAI behave.
            initial: weights to start from, in the form of a commit; a resume needs nothing outside the folder.

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
            with FolderLock(staged):
                run = RunFolder(staged)
                _fill(run, configuration.dump(config, out), plan, splits, findings, manifest)
                if initial is not None:
                    checkpoint.save(run.initial, 0, {"model": initial}, {})
                os.rename(staged, out)
        except OSError as error:
            if is_taken(out):
                raise InputError(f"{out} exists and is not empty; choose another --out", code="B042") from None
            raise WorkError(f"{out} could not be made: {why(error)}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        fsync_folder(out.parent)
        return RunFolder(out)

    @staticmethod
    def open(path: Path) -> RunFolder:
        """An existing run.

        Raises:
            InputError: if it is none; what is missing is named.
            ArtefactError: if it is a model file of another program; no more than its first bytes are read.
        """
        refuse_model_file(path)
        run = RunFolder(path.absolute())
        if path.is_file():
            raise InputError(
                f"{path} is no run folder, but a file; give the folder that train made as RUN, and a configuration or "
                "an image after it: evaluate RUN --config FILE, predict RUN FILE --out DIR"
            )
        if not path.is_dir():
            raise InputError(f"{path} is no run folder: there is no folder of that name")
        missing = [f.name for f in (run.config, run.plan, run.splits, run.manifest) if not f.is_file()]
        if missing:
            hint = "; give one of the folds in it" if folds_in(path) else ""
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
        if not isinstance(data, dict) or not data.keys() >= MANIFEST_KEYS:
            raise ArtefactError(f"{self.manifest} is not a manifest of this version; train the run again")
        return data

    def made_with(self) -> dict[str, Any]:
        """What decides the run's result, stored with each checkpoint and compared before it is used.

        Paths, and settings that change where or how long but not what is computed, are left out.
        """
        data = _decisive(self.config.read_bytes().decode())
        # as it is written: entries that a later version adds would make another plan of it
        plan = read_json(self.plan, limit_bytes=MAX_JSON_BYTES)
        if not isinstance(plan, dict):
            raise ArtefactError(f"{self.plan} is not a plan of this version")
        manifest = self.load_manifest()
        return {
            "configuration": sha256_bytes(json_bytes(data)),
            "plan": sha256_bytes(json_bytes({k: plan[k] for k in plan if k not in NOT_DECISIVE_IN_PLAN})),
            "cohort": manifest["table_sha256"],
            "splits": sha256_bytes(read_bytes(self.splits, limit_bytes=MAX_JSON_BYTES)),
            "fold": manifest["fold"],
        }

    def decisive_settings(self) -> dict[str, Any]:
        """By their dotted keys, the settings that decide what is computed, also those that its file leaves out."""
        return configuration.dotted(_decisive(configuration.dump(self.load_config(), self.path)))

    def newest(self, first_of: Sequence[str] = ()) -> checkpoint.Checkpoint | None:
        """The newest whole checkpoint, or None if nothing was committed yet.

        Args:
            first_of: groups of tensors of which one is needed; see :func:`medmtl.checkpoint.load`.

        Raises:
            ArtefactError: if all are damaged, or it was made by another run.
        """
        stored = checkpoint.load(self.checkpoints, first_of)
        if stored is None:
            return None
        own = self.made_with()
        found = stored.state.get("made_with")
        if not isinstance(found, dict):
            raise ArtefactError(f"step {stored.step} does not say what it was made with; train again", code="B155")
        other = [name for name in own if found.get(name) != own[name]]
        if other:
            raise ArtefactError(
                f"step {stored.step} in {self.checkpoints} was made with another {' and another '.join(other)} than "
                "this run; put the run's own files back, or start a new run",
                code="B153",
            )
        return stored

    def load_initial(self) -> Mapping[str, torch.Tensor]:
        """The weights that the run starts from, as :meth:`create` got them.

        Raises:
            ArtefactError: if they are damaged or missing.
        """
        stored = checkpoint.load(self.initial)
        if stored is None or "model" not in stored.tensors:
            raise ArtefactError(f"{self.initial} lacks the weights that the run starts from", code="B147")
        return stored.tensors["model"]

    def is_finished(self) -> bool:
        """Whether the last planned step was committed."""
        stored = checkpoint.load(self.checkpoints)
        return stored is not None and stored.step == self.load_plan().steps

    def differences(self, processes: int = 1) -> dict[str, list[str]]:
        """What differs now from what the run was started with, and can change the last bits: name -> [then, now].

        Args:
            processes: that train it now.
        """
        manifest = self.load_manifest()
        then = {**manifest.get("versions", {}), "hardware": manifest.get("hardware", "")}
        now = {**_versions(), "hardware": describe_hardware(manifest.get("device", "cpu"))}
        then["processes"], now["processes"] = str(manifest.get("processes", 1)), str(processes)
        return {name: [str(then[name]), now[name]] for name in now if name in then and then[name] != now[name]}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against other processes, and remove what a killed one left half-written.

        Raises:
            BusyRunError: if one is training it.
        """
        with FolderLock(self.path):
            warn_of_others(self.path)
            remove_leftovers(self.path)
            self._place = _place(self.path)
            yield

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to ``log.jsonl``; see :meth:`medmtl.run_log.RunLog.write`."""
        self._log.write(record)

    def sync_log(self) -> None:
        """Wait until the log is on disk; see :meth:`medmtl.run_log.RunLog.sync`.

        Raises:
            WorkError: the run folder is not where it was when it was locked; nothing is made in its old place.
        """
        if self._place is not None and _place(self.path) != self._place:
            raise WorkError(
                f"{self.path} was moved or removed while it was trained; put it back and go on with --resume"
            )
        self._log.sync()

    def read_log(self) -> list[dict[str, Any]]:
        """All records; lines that a kill or a full disk left torn are left out, and counted in a warning."""
        return self._log.read()

    def truncate_log(self, step: int) -> None:
        """Drop records beyond ``step``, so that a resumed log equals the uninterrupted one. Hold the lock."""
        self._log.truncate(step)

    def evaluation(self, split: str) -> Path:
        """Folder of a split's evaluation."""
        return self.path / "evaluation" / split


def open_folds(path: Path) -> list[RunFolder]:
    """The run at ``path``, or the folds in it, in the order of their numbers.

    Raises:
        InputError: if it is neither, or one of the folds is no run.
    """
    return [RunFolder.open(fold) for fold in folds_in(path)] or [RunFolder.open(path)]


def no_checkpoint(run: RunFolder) -> ArtefactError:
    """The refusal of a run that has no commit."""
    return ArtefactError(f"{run.path.name} has no checkpoint yet; train it first", code="B147")


def _decisive(text: str) -> dict[str, Any]:
    """A configuration's data without what does not decide the result."""
    data: dict[str, Any] = strict_yaml.parse(text).data
    for key in NOT_DECISIVE:
        section, _, name = key.partition(".")
        if name:
            data.get(section, {}).pop(name, None)
        else:
            data.pop(section, None)
    for entry in cohort_list.entries(data):
        for name in cohort_list.LOCAL:
            entry.pop(name, None)
    return data


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


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _remove_dead_stages(out: Path) -> None:
    """Remove what killed processes left beside ``out``; a living one holds the lock of its own."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.tmp-[0-9]+")
    for stage in [entry for entry in out.parent.iterdir() if pattern.fullmatch(entry.name)]:
        with suppress(BusyRunError), FolderLock(stage):
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
