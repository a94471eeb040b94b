"""Prepared cases on disk: read in part, never stale, safe to share between runs and to delete.

An entry's name is a hash of what it was made from: the bytes of the case's files and the settings. It is written into a
temporary folder and renamed, so it is there whole or not at all; of two builders the later one discards its own. Every
file of an entry carries a hash that is verified when a process first opens it; a torn or altered entry is built again.
Files are hashed anew in every process, not looked up by path and time: that is as fast as the disk and cannot be wrong.
A cohort that was checked brings the hashes that its files had: one that changed since is refused, not prepared anew.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from medmtl.data.box_table import boxes_of
from medmtl.data.case import Case
from medmtl.data.preparation import prepare_case
from medmtl.data.prepared import Preparation, Prepared
from medmtl.data.volume import Grid
from medmtl.disk import FULL, refuse_foreign, why
from medmtl.errors import ArtefactError, InputError, MachineError, WorkError, out_of_memory
from medmtl.files import json_bytes, make_private_folder, read_json, sha256_bytes, sha256_file, write_new

logger = logging.getLogger(__name__)

VERSION = 3  # of the preparation's code; raise it when equal inputs would give other arrays
IMAGE, META = "image.npy", "meta.json"
MAX_META_BYTES = 1 << 20
LEFTOVER = ".tmp-"
LEFTOVER_SECONDS = 24 * 3600  # older temporary folders belong to nobody who still lives
# what reading an entry can meet where its content is not what was written, numpy's header parser included
DAMAGE = (
    ArtefactError, FileNotFoundError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """What an entry is made from: its name in the cache, and the hash of each file by path."""

    key: str
    sha256: Mapping[str, str]


class PreparedCache:
    """Entries of one preparation in a folder, for the cases of one cohort.

    Args:
        folder: created if absent, 0700; may be shared with other runs and other settings.
        preparation: the deterministic half's settings.

    Attributes:
        rebuilt: ids of the cases whose damaged entry this object has built again.
    """

    def __init__(self, folder: Path, preparation: Preparation) -> None:
        self.folder = folder
        self.preparation = preparation
        self.rebuilt: set[str] = set()
        self._sources: dict[str, _Source] = {}
        self._verified: set[str] = set()
        self._trusted = False
        self._refusals: list[OSError] = []  # of a full disk

    def get(self, case: Case) -> Prepared:
        """The prepared case, its arrays as read-only memory maps; built now if it is not there or not whole.

        Where the disk takes no more, the arrays are in memory, and made again at every call; one warning says so.

        Raises:
            InputError: if the case's files cannot be prepared, or are not those that were checked.
            MachineError: if memory runs out.
            ArtefactError: if somebody else could have filled the folder.
            WorkError: if a file cannot be read or written, or changes while it is read.
        """
        where = f"case {case.case_id!r} could not be prepared"
        try:
            return self._get(case)
        except OSError as error:
            raise WorkError(f"{where}: {why(error)}") from error
        except Exception as error:
            if (wanted := out_of_memory(error)) is None:
                raise
            raise MachineError(
                f"{where} (row {case.row}): {wanted}; lower plan.workers, or use a machine with more memory"
            ) from error

    def holds(self, case: Case) -> bool:
        """Whether there is an entry for a case, whole or not."""
        return (self.folder / self._source(case).key).exists()

    def ensure(
        self, cases: Sequence[Case], workers: int, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Have a whole entry for every case, building at most ``workers`` of them at once.

        Threads do it: decompression, hashing and interpolation run outside the interpreter's lock.

        Raises:
            InputError, MachineError, ArtefactError, WorkError: as :meth:`get`, for the first case that fails.
        """
        if self._make_folder():
            self._remove_leftovers()
        progress(0, len(cases))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for done, _ in enumerate(pool.map(self._have, cases), start=1):
                progress(done, len(cases))
        if self.rebuilt:
            logger.info("%d damaged cache entries were built again", len(self.rebuilt))

    def _have(self, case: Case) -> None:
        self.get(case)  # and let go: behind one slow case, open files of all later ones would wait for their turn

    def _make_folder(self) -> bool:
        """Have the folder, if the disk lets us; refuse one that somebody else could have filled."""
        try:
            make_private_folder(self.folder)
        except OSError as error:
            if error.errno not in FULL:
                raise WorkError(f"the cache folder could not be made: {why(error)}") from error
            self._give_up(error)
            return False
        if not self._trusted:
            refuse_foreign(self.folder, "cache.folder")
            self._trusted = True
        return True

    def _get(self, case: Case) -> Prepared:
        source = self._source(case)
        if not self._trusted and self.folder.exists():
            self._make_folder()
        entry = self.folder / source.key
        if entry.exists():
            try:
                return self._open(entry, case, source)
            except DAMAGE as error:
                logger.warning("the cache entry of case %r was damaged and is built again: %s", case.case_id, error)
                self.rebuilt.add(case.case_id)
                self._discard(entry)
        prepared = self._build(case, source)
        if self._refusals or not self._store(prepared, entry):
            return prepared
        try:
            return self._open(entry, case, source)
        except DAMAGE as error:
            raise WorkError(
                f"the cache entry of case {case.case_id!r} is damaged right after it was written ({error}); check the "
                f"disk of {self.folder}"
            ) from error

    def _source(self, case: Case) -> _Source:
        if case.case_id not in self._sources:
            optional = self.preparation.optional
            images = [
                case.images.get(channel) if channel in optional else case.images[channel]
                for channel in self.preparation.channels
            ]
            labels = {task: case.files.get(column) for task, column in self.preparation.labels.items()}
            # a task without its own file is not labelled, and its mask is not read
            maps = {
                task: [case.files[column] for column in columns if column is not None]
                for task, columns in self.preparation.maps.items()
                if columns[0] in case.files
            }
            targets = [*labels.values(), *(path for files in maps.values() for path in files)]
            paths = [path for path in dict.fromkeys([*images, *targets]) if path]
            hashes = {str(path): sha256_file(path) for path in paths}
            for path in paths:
                case.refuse_change(path, hashes[str(path)])
            settings = {
                "version": VERSION,
                "case": case.case_id,  # seeds the foreground sample
                "spacing": self.preparation.spacing,
                "resample_to_first": self.preparation.resample_to_first,
                "images": [hashes[str(path)] if path else None for path in images],
                "labels": {task: self._label(case, task, hashes[str(path)]) for task, path in labels.items() if path},
                "ignored": dict(self.preparation.ignored),
                "maps": {task: [hashes[str(path)] for path in files] for task, files in maps.items()},
            }
            self._sources[case.case_id] = _Source(sha256_bytes(json_bytes(settings)), hashes)
        return self._sources[case.case_id]

    def _label(self, case: Case, task: str, sha256: str) -> str | list[str]:
        """What a label comes from: its file or, of a table that may be many cases' own, the case's boxes."""
        frame = self.preparation.boxes.get(task)
        return sha256 if frame is None else ["boxes", boxes_of(case, self.preparation.labels[task], frame)[0].digest()]

    def _build(self, case: Case, source: _Source) -> Prepared:
        changed = f"a file of case {case.case_id!r} changed while it was read; start again"
        try:
            prepared = prepare_case(case, self.preparation)
        except InputError as error:
            if any(sha256_file(Path(path)) != digest for path, digest in source.sha256.items()):
                raise WorkError(f"{changed} ({error})") from error
            raise
        if prepared.sha256 != source.sha256:
            raise WorkError(changed)
        return prepared

    def _store(self, prepared: Prepared, entry: Path) -> bool:
        """Put an entry into the folder; False where the disk takes no more."""
        temporary = self._temporary()
        try:
            make_private_folder(temporary)
            _write(prepared, temporary)
            temporary.rename(entry)
        except OSError as error:
            if error.errno in FULL:
                self._give_up(error)
                return False
            # POSIX allows either for a target that holds files: another process was faster, with equal content
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return True

    def _give_up(self, error: OSError) -> None:
        """From now on nothing is written: a full disk that is tried at every case fails at every case."""
        self._refusals.append(error)
        if self._refusals[0] is error:  # of several threads that meet it at once the first one tells
            logger.warning(
                "the cache takes no more (%s); cases that are not in it are prepared anew at every use, which is "
                "slow: set cache.folder to another disk",
                why(error),
            )

    def _open(self, entry: Path, case: Case, source: _Source) -> Prepared:
        stored = read_json(entry / META, limit_bytes=MAX_META_BYTES)
        meta = stored["content"]
        if entry.name not in self._verified:
            if sha256_bytes(json_bytes(meta)) != stored["sha256"]:
                raise ArtefactError(f"{META} is not what was written")
            for name, digest in meta["files"].items():
                if sha256_file(entry / name) != digest:
                    raise ArtefactError(f"{name} is not what was written")
            self._verified.add(entry.name)
        return Prepared(
            case_id=case.case_id,
            image_CDHW=_load(entry / IMAGE, "r"),
            labels={task: _load(entry / f"labels-{task}.npy", "r") for task in meta["labels"]},
            grid=_grid(meta["grid"]),
            native=_grid(meta["native"]),
            statistics=tuple(meta["statistics"]),
            foreground={task: _by_value(_load(entry / f"foreground-{task}.npy", None)) for task in meta["labels"]},
            sha256=source.sha256,
        )

    def _temporary(self) -> Path:
        return self.folder / f"{LEFTOVER}{secrets.token_hex(8)}"

    def _discard(self, entry: Path) -> None:
        """Take an entry away at once, so that no other process meets half of it."""
        temporary = self._temporary()
        with suppress(FileNotFoundError):
            entry.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for folder in self.folder.glob(f"{LEFTOVER}*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


class _Hashing:
    """A file to write to that knows the hash of what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)

    def sha256(self) -> str:
        return self._digest.hexdigest()


def _write(prepared: Prepared, folder: Path) -> None:
    # nothing waits for the disk: an entry that a power cut tears is found by its hashes
    arrays: dict[str, npt.NDArray[Any]] = {IMAGE: prepared.image_CDHW}
    for task, label in prepared.labels.items():
        arrays[f"labels-{task}.npy"] = label
        arrays[f"foreground-{task}.npy"] = _in_one(prepared.foreground[task])
    content = {
        "labels": list(prepared.labels),
        "grid": {"shape": list(prepared.grid.shape), "affine": prepared.grid.affine.tolist()},
        "native": {"shape": list(prepared.native.shape), "affine": prepared.native.affine.tolist()},
        "statistics": [dict(statistics) for statistics in prepared.statistics],
        "files": {name: _save(folder / name, array) for name, array in arrays.items()},
    }
    write_new(folder / META, json_bytes({"content": content, "sha256": sha256_bytes(json_bytes(content))}))


def _save(path: Path, array: npt.NDArray[Any]) -> str:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        hashing = _Hashing(file)
        # through an object of ours: into a plain file numpy writes without saying why it failed
        np.save(hashing, array, allow_pickle=False)
    return hashing.sha256()


def _load(path: Path, mmap_mode: Literal["r"] | None) -> npt.NDArray[Any]:
    # not numpy.load, which also opens archives
    array: npt.NDArray[Any]
    if mmap_mode is not None:
        array = np.lib.format.open_memmap(path, mode=mmap_mode)
    else:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _in_one(foreground: Mapping[int, npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Rows of value and voxel index, (n, 4)."""
    rows = [np.insert(places, 0, value, axis=1) for value, places in foreground.items()]
    return np.concatenate([np.empty((0, 4), np.int32), *rows])


def _by_value(rows: npt.NDArray[np.int32]) -> dict[int, npt.NDArray[np.int32]]:
    return {int(value): rows[rows[:, 0] == value, 1:] for value in np.unique(rows[:, 0])}


def _grid(data: Mapping[str, Any]) -> Grid:
    d, h, w = data["shape"]
    return Grid((d, h, w), np.array(data["affine"], dtype=np.float64))
