"""A checkpoint from disk: nothing is parsed before its size and hash are those of the commit record."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from medmtl import files
from medmtl.errors import ArtefactError

SCHEMA = 1
MAX_TENSOR_BYTES = 1 << 35
MAX_JSON_BYTES = 1 << 26
FINITE = ("model", "average")
COMMIT = "commit.json"
STATE = "state.json"
SUFFIX = ".safetensors"

# Padded to six digits and no more, so that a step has one name.
STEP = re.compile(r"step-(?:[0-9]{6}|[1-9][0-9]{6,11})")
_TENSOR_FILE = re.compile(r"[a-z][a-z0-9_]*\.safetensors")
FAR_TOO_LARGE = 10  # times the recorded size

_log = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was saved.

    Attributes:
        step: optimiser steps done.
        tensors: group (such as ``model``) -> name -> tensor, on the CPU.
        state: the JSON beside them.
        sha256: group -> hash of its file.
    """

    step: int
    tensors: Mapping[str, Tensors]
    state: Mapping[str, Any]
    sha256: Mapping[str, str]


def load(folder: Path, first_of: Sequence[str] = ()) -> Checkpoint | None:
    """The newest whole checkpoint, or None if nothing was ever committed.

    Each one that is damaged is named in a warning and the one before it is tried.

    Args:
        folder: the run's ``checkpoints``; may be missing.
        first_of: of these groups only the first that there is is read, and no other; all are without any. The files of
            the others are compared with their hashes all the same.

    Raises:
        ArtefactError: there are checkpoints and all are damaged, or ``folder`` is a link.
        OSError: the disk failed; that says nothing about the checkpoint.
    """
    candidates = step_folders(folder)
    newest: ArtefactError | None = None
    for step in sorted(candidates, reverse=True):
        try:
            return _read(candidates[step], step, first_of)
        except ArtefactError as error:
            newest = newest or error
            _log.warning("checkpoint %s is not used: %s", candidates[step].name, error)
    if newest is not None:
        raise ArtefactError(
            f"all {len(candidates)} checkpoints in {folder} are damaged; restore them from a copy, or train again",
            code=newest.code,
        )
    return None


def step_folders(folder: Path) -> dict[int, Path]:
    """Step -> folder of every checkpoint in ``folder``, whole or not."""
    refuse_link(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(path.name.removeprefix("step-")): path for path in paths if STEP.fullmatch(path.name)}


def refuse_link(folder: Path) -> None:
    """Refuse a link in place of the folder of checkpoints."""
    if folder.is_symlink():
        raise ArtefactError(f"{folder} is a link; checkpoints lie in the run's own folder only", code="B159")


def is_whole(folder: Path, step: int) -> bool:
    """Whether every file of a checkpoint is what its commit record says."""
    try:
        record = _record(folder, step)
    except ArtefactError:
        return False
    return all(files.sha256_file(folder / name) == entry["sha256"] for name, entry in record.items())


def not_finite(group: str, members: Tensors) -> str | None:
    """Name of a tensor that must be finite and is not; the optimiser may hold what it likes."""
    if group not in FINITE:
        return None
    return next((name for name, tensor in members.items() if not bool(torch.isfinite(tensor).all())), None)


def _record(folder: Path, step: int) -> dict[str, dict[str, Any]]:
    """What the commit record says about each file, after a look at everything but the bytes."""
    if folder.is_symlink() or not folder.is_dir():
        raise ArtefactError(f"{folder} is not a folder", code="B159")
    if not os.path.lexists(folder / COMMIT):
        raise ArtefactError(f"{folder} was never committed: it has no {COMMIT}", code="B154")
    body = _parse_json(files.read_bytes(folder / COMMIT, limit_bytes=MAX_JSON_BYTES), folder / COMMIT)
    if not isinstance(body, dict) or body.keys() != {"schema", "step", "files"} or not isinstance(body["files"], dict):
        raise ArtefactError(f"{folder / COMMIT} is not a commit record", code="B160")
    if body["schema"] != SCHEMA:
        raise ArtefactError(
            f"{folder} has the schema {body['schema']!r}; this version of medmtl reads {SCHEMA}", code="B153"
        )
    if body["step"] != step:
        raise ArtefactError(f"{folder} holds the commit record of step {body['step']!r}", code="B148")
    record: dict[str, dict[str, Any]] = body["files"]
    _check_names(folder, record)
    for name, entry in record.items():
        _check_file(folder / name, entry)
    return record


def _check_names(folder: Path, record: Mapping[str, Any]) -> None:
    foreign = [name for name in record if name != STATE and not _TENSOR_FILE.fullmatch(name)]
    if foreign:
        raise ArtefactError(f"{foreign[0]!r} is no file of the checkpoint {folder}", code="B160")
    found, wanted = set(os.listdir(folder)), {COMMIT, STATE, *record}
    if wanted - found or STATE not in record:
        raise ArtefactError(f"{folder} lacks {', '.join(sorted(wanted - found)) or STATE}", code="B147")
    if found - wanted:
        extra = ", ".join(map(repr, sorted(found - wanted)))
        raise ArtefactError(f"{folder} holds {extra}, which its commit record does not name", code="B160")


def _check_file(path: Path, entry: Any) -> None:
    limit = MAX_JSON_BYTES if path.name == STATE else MAX_TENSOR_BYTES
    if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"} or type(entry["bytes"]) is not int:
        raise ArtefactError(f"the commit record of {path} is not complete", code="B160")
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ArtefactError(f"{path} is a link, a folder or a device, not a regular file", code="B159")
    if found.st_size > limit or found.st_size >= FAR_TOO_LARGE * max(entry["bytes"], 1):
        raise ArtefactError(f"{path} has {found.st_size} bytes, far more than a checkpoint of this run", code="B161")
    if found.st_size != entry["bytes"]:
        raise ArtefactError(f"{path} has {found.st_size} bytes, its commit record says {entry['bytes']}", code="B147")


def _read(folder: Path, step: int, first_of: Sequence[str]) -> Checkpoint:
    record = _record(folder, step)
    wanted = [group + SUFFIX for group in first_of if group + SUFFIX in record][:1] if first_of else list(record)
    tensors: dict[str, Tensors] = {}
    state: Any = None
    for name, entry in record.items():
        used = name == STATE or name in wanted
        data = files.read_bytes(folder / name, limit_bytes=entry["bytes"]) if used else None
        digest = files.sha256_file(folder / name) if data is None else files.sha256_bytes(data)
        if digest != entry["sha256"]:
            raise ArtefactError(f"{folder / name} was changed after it was written (sha256 differs)", code="B148")
        if data is None:
            continue
        if name == STATE:
            state = _parse_json(data, folder / name)
        else:
            tensors[name.removesuffix(SUFFIX)] = _parse_tensors(data, folder / name)
    if not isinstance(state, dict):
        raise ArtefactError(f"{folder / STATE} is not a JSON object", code="B160")
    sha256 = {group: record[group + SUFFIX]["sha256"] for group in tensors}
    return Checkpoint(step=step, tensors=tensors, state=state, sha256=sha256)


def _parse_json(data: bytes, path: Path) -> Any:
    try:
        return files.parse_json(data, path)
    except ArtefactError as error:
        raise ArtefactError(f"{path} does not hold the JSON that was written there", code="B149") from error


def _parse_tensors(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    # The header first, strictly: safetensors itself lets the last of two equal names win.
    _parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], path)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:
        raise ArtefactError(f"{path} is not a safetensors file that this version reads: {error}", code="B149") from None
    if (bad := not_finite(path.name.removesuffix(SUFFIX), tensors)) is not None:
        raise ArtefactError(f"{path}: the tensor {bad!r} is not finite", code="B152")
    return tensors
