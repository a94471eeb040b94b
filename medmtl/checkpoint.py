"""Checkpoints: what a run needs to go on, bit for bit, or to predict.

::

    checkpoints/
      step-000250/
        model.safetensors  optimiser.safetensors  ...   one file per group of tensors
        state.json                                      everything that is no tensor
        commit.json                                     step, size and sha256 of each file; written last
      last                                              text: the name of the newest

A commit is made in a temporary folder: every file is synced, read back and compared by hash, then the commit record is
written, and the folder is renamed into place. At every instant the newest committed checkpoint is whole. What is loaded
is compared with its commit record first and parsed after; nothing here can run code.

One process at a time may save: hold the run folder's lock.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from medmtl import files
from medmtl.errors import ArtefactError, NumericError

SCHEMA = 1
MAX_TENSOR_BYTES = 1 << 35
MAX_JSON_BYTES = 1 << 26
LAST_NAME = "last"
FINITE = ("model", "average")

# Padded to six digits and no more, so that a step has one name.
_STEP = re.compile(r"step-(?:[0-9]{6}|[1-9][0-9]{6,11})")
_TEMPORARY = re.compile(rf"\.{_STEP.pattern}\.tmp-[0-9]+")
_GROUP = re.compile(r"[a-z][a-z0-9_]*")
_TENSOR_FILE = re.compile(r"[a-z][a-z0-9_]*\.safetensors")
_SUFFIX = ".safetensors"
_COMMIT = "commit.json"
_STATE = "state.json"

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


def save(folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Commit a checkpoint. When this returns, it is on disk.

    A step that is already committed and whole is left as it is: one step of a run has one state. Checkpoints of earlier
    steps are removed once ``keep`` whole ones stand; damaged ones do not count.

    Args:
        folder: the run's ``checkpoints``; made if missing.
        step: optimiser steps done.
        tensors: group -> name -> tensor, on any device; GROUP is a file name such as ``model`` or ``optimiser``.
        state: what JSON can hold.
        keep: how many whole checkpoints to leave, at least 2.

    Returns:
        The folder of this checkpoint.

    Raises:
        NumericError: a tensor of ``model`` or ``average``, or a number in ``state``, is not finite; nothing is written.
        ArtefactError: ``folder`` is a link.
        OSError: not committed; earlier checkpoints are as they were. A read-back that differs is one of these (EIO).
    """
    if keep < 2:
        raise ValueError("keep must be at least 2: a damaged checkpoint needs one before it")
    target = folder / f"step-{step:06d}"
    state_bytes = _checked(target.name, tensors, state)
    _refuse_link(folder)
    files.make_private_folder(folder)
    _remove_leftovers(folder)
    if not _is_whole(target, step):
        if os.path.lexists(target):
            _remove(target)
        _commit(target, step, tensors, state_bytes)
    _finish(target, step, keep)
    return target


def tidy(folder: Path, *, keep: int = 2) -> None:
    """Do what a kill may have left undone: remove leftovers and old checkpoints, and let ``last`` name the newest.

    Arguments and errors are those of :func:`save`; ``folder`` may be missing.
    """
    candidates = _step_folders(folder)
    if folder.is_dir():
        _remove_leftovers(folder)
    for step in sorted(candidates, reverse=True):
        if _is_whole(candidates[step], step):
            return _finish(candidates[step], step, keep)


def _finish(target: Path, step: int, keep: int) -> None:
    folder = target.parent
    files.fsync_folder(folder)
    files.write_atomic(folder / LAST_NAME, f"{target.name}\n".encode())
    try:
        _prune(folder, step, keep)
    except OSError as error:
        _log.warning("old checkpoints in %s could not be removed: %s", folder, error)


def load(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None if nothing was ever committed.

    Each one that is damaged is named in a warning and the one before it is tried.

    Args:
        folder: the run's ``checkpoints``; may be missing.

    Raises:
        ArtefactError: there are checkpoints and all are damaged, or ``folder`` is a link.
        OSError: the disk failed; that says nothing about the checkpoint.
    """
    candidates = _step_folders(folder)
    for step in sorted(candidates, reverse=True):
        try:
            return _read(candidates[step], step)
        except ArtefactError as error:
            _log.warning("checkpoint %s is not used: %s", candidates[step].name, error)
    if candidates:
        raise ArtefactError(
            f"all {len(candidates)} checkpoints in {folder} are damaged; restore them from a copy, or train again"
        )
    return None


def optimiser_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The state of an optimiser by parameter name.

    Args:
        optimizer: one that keeps tensors only, such as AdamW.
        names: parameter -> unique name, for every parameter that it holds.

    Returns:
        ``NAME.SLOT`` -> tensor (for AdamW ``exp_avg``, ``exp_avg_sq`` and ``step``), without entries for parameters
        that were never stepped; and per parameter group its ``params`` (names) and ``options``, fit for JSON.
    """
    plain = optimizer.state_dict()
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    tensors = {f"{ordered[i]}.{slot}": value for i, entry in plain["state"].items() for slot, value in entry.items()}
    groups = [
        {
            "params": [ordered[i] for i in group["params"]],
            "options": {key: value for key, value in group.items() if key != "params"},
        }
        for group in plain["param_groups"]
    ]
    return tensors, groups


def load_optimiser(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.nn.Parameter, str],
    tensors: Tensors,
    state: list[dict[str, Any]],
) -> None:
    """Put back what :func:`optimiser_tensors` returned; whatever state the optimiser had is dropped.

    Args:
        optimizer: built as the saved one was.
        names: parameter -> name.
        tensors: ``NAME.SLOT`` -> tensor; copied.
        state: the parameter groups.

    Raises:
        ArtefactError: groups, parameters, options, slots or shapes differ from those of this optimiser.
    """
    plain = optimizer.state_dict()
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    present = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    if [group["params"] for group in state] != present:
        raise ArtefactError("the checkpoint's optimiser holds other parameters than this model; it cannot be resumed")
    for group, saved in zip(plain["param_groups"], state, strict=True):
        options = saved["options"]
        if options.keys() != group.keys() - {"params"}:
            raise ArtefactError(
                "the checkpoint's optimiser has other options; resume with the version it was made with"
            )
        # JSON has no tuples, and some options (betas) are one.
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in options.items()})
    plain["state"] = _entries({names[parameter]: parameter for parameter in ordered}, tensors)
    optimizer.load_state_dict(plain)


def _entries(parameters: dict[str, torch.Tensor], tensors: Tensors) -> dict[int, dict[str, torch.Tensor]]:
    index = {name: i for i, name in enumerate(parameters)}
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition(".")
        if name not in parameters or (value.dim() and value.shape != parameters[name].shape):
            raise ArtefactError(f"the checkpoint's optimiser entry {key!r} fits no parameter of this model")
        entries.setdefault(index[name], {})[slot] = value.clone()
    if len({frozenset(entry) for entry in entries.values()}) > 1:
        raise ArtefactError("the checkpoint's optimiser lacks entries of some parameters; it cannot be resumed exactly")
    return entries


def _checked(name: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> bytes:
    if not _STEP.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a checkpoint")
    for group, members in tensors.items():
        if not _GROUP.fullmatch(group):
            raise ValueError(f"{group!r} cannot name a file of tensors")
        if (bad := _not_finite(group, members)) is not None:
            raise NumericError(f"{group}: the tensor {bad!r} is not finite at {name}; nothing was saved")
    try:
        return files.json_bytes(dict(state))
    except ValueError as error:
        raise NumericError(f"the training state cannot be saved at {name}: {error}") from None


def _not_finite(group: str, members: Tensors) -> str | None:
    if group not in FINITE:
        return None
    return next((name for name, tensor in members.items() if not bool(torch.isfinite(tensor).all())), None)


def _contents(tensors: Mapping[str, Tensors], state: bytes) -> Iterator[tuple[str, bytes]]:
    for group, members in tensors.items():
        # Copies, because the format takes neither strided tensors nor two that share memory.
        yield f"{group}.safetensors", safetensors.torch.save({name: _plain(value) for name, value in members.items()})
    yield _STATE, state


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _commit(target: Path, step: int, tensors: Mapping[str, Tensors], state: bytes) -> None:
    temporary = _temporary(target)
    try:
        temporary.mkdir(mode=0o700)
        record: dict[str, dict[str, Any]] = {}
        for name, data in _contents(tensors, state):
            files.write_new(temporary / name, data)
            record[name] = {"bytes": len(data), "sha256": files.sha256_bytes(data)}
            if files.sha256_file(temporary / name) != record[name]["sha256"]:
                raise OSError(errno.EIO, "the file read back differs from what was written", str(temporary / name))
        files.write_new(temporary / _COMMIT, files.json_bytes({"schema": SCHEMA, "step": step, "files": record}))
        files.fsync_folder(temporary)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp-{os.getpid()}")


def _remove(target: Path) -> None:
    # Out of sight first: a checkpoint is whole or absent, also while it is being removed.
    temporary = _temporary(target)
    os.rename(target, temporary)
    _delete(temporary)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_leftovers(folder: Path) -> None:
    for path in list(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name):
            _delete(path)
    files.remove_leftovers(folder)


def _prune(folder: Path, newest: int, keep: int) -> None:
    # Later steps are damaged ones that the run went back behind; they are replaced when it gets there.
    candidates = _step_folders(folder)
    whole = 1
    for step in sorted((step for step in candidates if step < newest), reverse=True):
        if whole >= keep:
            _remove(candidates[step])
        elif _is_whole(candidates[step], step):
            whole += 1


def _step_folders(folder: Path) -> dict[int, Path]:
    _refuse_link(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(path.name.removeprefix("step-")): path for path in paths if _STEP.fullmatch(path.name)}


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise ArtefactError(f"{folder} is a link; checkpoints lie in the run's own folder only")


def _is_whole(folder: Path, step: int) -> bool:
    try:
        record = _record(folder, step)
    except ArtefactError:
        return False
    return all(files.sha256_file(folder / name) == entry["sha256"] for name, entry in record.items())


def _record(folder: Path, step: int) -> dict[str, dict[str, Any]]:
    """What the commit record says about each file, after a look at everything but the bytes."""
    if folder.is_symlink() or not folder.is_dir():
        raise ArtefactError(f"{folder} is not a folder")
    body = files.read_json(folder / _COMMIT, limit_bytes=MAX_JSON_BYTES)
    if not isinstance(body, dict) or body.keys() != {"schema", "step", "files"} or not isinstance(body["files"], dict):
        raise ArtefactError(f"{folder / _COMMIT} is not a commit record")
    if body["schema"] != SCHEMA:
        raise ArtefactError(f"{folder} has the schema {body['schema']!r}; this version of medmtl reads {SCHEMA}")
    if body["step"] != step:
        raise ArtefactError(f"{folder} holds the commit record of step {body['step']!r}")
    record: dict[str, dict[str, Any]] = body["files"]
    if set(os.listdir(folder)) != {_COMMIT, *record} or _STATE not in record:
        raise ArtefactError(f"{folder} holds other files than its commit record says")
    for name, entry in record.items():
        _check_file(folder / name, entry)
    return record


def _check_file(path: Path, entry: Any) -> None:
    limit = MAX_JSON_BYTES if path.name == _STATE else MAX_TENSOR_BYTES
    if path.name != _STATE and not _TENSOR_FILE.fullmatch(path.name):
        raise ArtefactError(f"{path} is no file of a checkpoint")
    if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
        raise ArtefactError(f"the commit record of {path} is not complete")
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry["bytes"] or found.st_size > limit:
        raise ArtefactError(f"{path} is not a file of {entry['bytes']} bytes")


def _read(folder: Path, step: int) -> Checkpoint:
    record = _record(folder, step)
    tensors: dict[str, Tensors] = {}
    state: Any = None
    for name, entry in record.items():
        data = files.read_bytes(folder / name, limit_bytes=entry["bytes"])
        if files.sha256_bytes(data) != entry["sha256"]:
            raise ArtefactError(f"{folder / name} was changed after it was written (sha256 differs)")
        if name == _STATE:
            state = files.parse_json(data, folder / name)
        else:
            tensors[name.removesuffix(_SUFFIX)] = _parse_tensors(data, folder / name)
    if not isinstance(state, dict):
        raise ArtefactError(f"{folder / _STATE} is not a JSON object")
    sha256 = {group: record[group + _SUFFIX]["sha256"] for group in tensors}
    return Checkpoint(step=step, tensors=tensors, state=state, sha256=sha256)


def _parse_tensors(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    # The header first, strictly: safetensors itself lets the last of two equal names win.
    files.parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], path)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:
        raise ArtefactError(f"{path} is not a safetensors file that this version reads: {error}") from None
    if (bad := _not_finite(path.name.removesuffix(_SUFFIX), tensors)) is not None:
        raise ArtefactError(f"{path}: the tensor {bad!r} is not finite")
    return tensors
