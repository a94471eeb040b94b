"""A checkpoint to disk: whole and verified, or absent."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from medmtl import files
from medmtl.checkpoint.reading import (
    COMMIT,
    SCHEMA,
    STATE,
    STEP,
    Tensors,
    is_whole,
    not_finite,
    refuse_link,
    step_folders,
)
from medmtl.errors import NumericError

LAST_NAME = "last"

_TEMPORARY = re.compile(rf"\.{STEP.pattern}\.tmp-[0-9]+")
_GROUP = re.compile(r"[a-z][a-z0-9_]*")

_log = logging.getLogger(__name__)


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
    refuse_link(folder)
    files.make_private_folder(folder)
    _remove_leftovers(folder)
    if is_whole(target, step):
        files.fsync_folder(folder)
    else:
        if os.path.lexists(target):
            _remove(target)
        _commit(target, step, tensors, state_bytes)
    _finish(target, step, keep)
    return target


def tidy(folder: Path, *, keep: int = 2) -> None:
    """Do what a kill may have left undone: remove leftovers and old checkpoints, and let ``last`` name the newest.

    Arguments and errors are those of :func:`save`; ``folder`` may be missing.
    """
    candidates = step_folders(folder)
    if folder.is_dir():
        _remove_leftovers(folder)
    for step in sorted(candidates, reverse=True):
        if is_whole(candidates[step], step):
            return _finish(candidates[step], step, keep)


def _finish(target: Path, step: int, keep: int) -> None:
    files.write_atomic(target.parent / LAST_NAME, f"{target.name}\n".encode())
    try:
        _prune(target.parent, step, keep)
    except OSError as error:
        _log.warning("old checkpoints in %s could not be removed: %s", target.parent, error)


def _checked(name: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> bytes:
    if not STEP.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a checkpoint")
    for group, members in tensors.items():
        if not _GROUP.fullmatch(group):
            raise ValueError(f"{group!r} cannot name a file of tensors")
        if (bad := not_finite(group, members)) is not None:
            raise NumericError(f"{group}: the tensor {bad!r} is not finite at {name}; nothing was saved")
    try:
        return files.json_bytes(dict(state))
    except ValueError as error:
        raise NumericError(f"the training state cannot be saved at {name}: {error}") from None


def _contents(tensors: Mapping[str, Tensors], state: bytes) -> Iterator[tuple[str, bytes]]:
    for group, members in tensors.items():
        # Copies, because the format takes neither strided tensors nor two that share memory.
        yield f"{group}.safetensors", safetensors.torch.save({name: _plain(value) for name, value in members.items()})
    yield STATE, state


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _commit(target: Path, step: int, tensors: Mapping[str, Tensors], state: bytes) -> None:
    temporary = _temporary(target)
    try:
        temporary.mkdir(mode=0o700)
        record = {
            name: {"bytes": len(data), "sha256": files.write_verified(temporary / name, data)}
            for name, data in _contents(tensors, state)
        }
        body = files.json_bytes({"schema": SCHEMA, "step": step, "files": record})
        files.write_verified(temporary / COMMIT, body)
        files.fsync_folder(temporary)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        files.fsync_folder(target.parent)
    except OSError:
        # Nobody knows whether the name is on disk, and asking the folder again could get a yes that is none.
        with suppress(OSError):
            _remove(target)
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
    candidates = step_folders(folder)
    whole = 1
    for step in sorted((step for step in candidates if step < newest), reverse=True):
        if whole >= keep:
            _remove(candidates[step])
        elif is_whole(candidates[step], step):
            whole += 1
