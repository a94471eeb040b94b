"""Prepared cases on disk: read in part, never stale, safe to share between runs and to delete.

An entry's name is a hash of what it was made from: the bytes of the case's files and the settings. It is written into a
temporary folder and renamed, so it is there whole or not at all; of two builders the later one discards its own. Arrays
carry a hash that is verified when a process first opens them; a torn or altered entry is built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medmtl.data.case import Case
from medmtl.data.preparation import prepare_case
from medmtl.data.prepared import Preparation, Prepared
from medmtl.data.volume import Grid
from medmtl.errors import ArtefactError, WorkError
from medmtl.files import make_private_folder, read_json, sha256_file, write_json

logger = logging.getLogger(__name__)

VERSION = 1  # of the preparation's code; raise it when equal inputs would give other arrays
META = "meta.json"
MAX_META_BYTES = 1 << 24


class PreparedCache:
    """Entries of one preparation in a folder.

    Args:
        folder: created if absent, 0700; may be shared with other runs and other settings.
        preparation: the deterministic half's settings.
    """

    def __init__(self, folder: Path, preparation: Preparation) -> None:
        self.folder = folder
        self.preparation = preparation
        self._keys: dict[str, str] = {}
        self._verified: set[str] = set()

    def get(self, case: Case) -> Prepared:
        """The prepared case, its arrays as read-only memory maps; built now if it is not there or not whole."""
        entry = self.folder / self._key(case)
        if entry.exists():
            try:
                return self._open(entry)
            except (ArtefactError, OSError, ValueError, KeyError) as error:
                logger.warning("the cache entry of case %s was damaged and is built again (%s)", case.case_id, error)
                shutil.rmtree(entry, ignore_errors=True)
        self._build(case)
        return self._open(entry)

    def ensure(self, cases: Sequence[Case], workers: int, progress: Callable[[int, int], None] = lambda a, b: None) -> None:
        """Build what is missing, in processes of their own; at most ``workers`` cases are in memory at once."""
        make_private_folder(self.folder)
        missing = [case for case in cases if not (self.folder / self._key(case)).exists()]
        done = len(cases) - len(missing)
        progress(done, len(cases))
        if workers <= 1 or len(missing) <= 1:
            for case in missing:
                self._build(case)
                done += 1
                progress(done, len(cases))
            return
        context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
        try:
            with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for _ in pool.map(self._build, missing):
                    done += 1
                    progress(done, len(cases))
        except BrokenProcessPool:
            raise WorkError("a process that prepares cases was killed, probably for lack of memory; set plan.workers: 0") from None

    def _key(self, case: Case) -> str:
        if case.case_id not in self._keys:
            files = {name: sha256_file(path) for name, path in case.images.items()}
            used = set(self.preparation.labels.values())
            files |= {f"label:{column}": sha256_file(path) for column, path in case.files.items() if column in used}
            settings = {"version": VERSION, "case": case.case_id, "files": files, **asdict(self.preparation)}
            text = json.dumps(settings, sort_keys=True, default=dict)
            self._keys[case.case_id] = hashlib.sha256(text.encode()).hexdigest()
        return self._keys[case.case_id]

    def _build(self, case: Case) -> None:
        entry = self.folder / self._key(case)
        make_private_folder(self.folder)
        temporary = self.folder / f".{entry.name}.tmp-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        make_private_folder(temporary)
        try:
            _write(prepare_case(case, self.preparation), temporary)
            try:
                temporary.rename(entry)
            except OSError:
                if not entry.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _open(self, entry: Path) -> Prepared:
        meta = read_json(entry / META, limit_bytes=MAX_META_BYTES)
        if entry.name not in self._verified:
            for name, digest in meta["arrays"].items():
                if sha256_file(entry / name) != digest:
                    raise ArtefactError(f"{name} is not what was written")
            self._verified.add(entry.name)
        return Prepared(
            case_id=meta["case_id"],
            image_CDHW=_load(entry / "image.npy"),
            labels={task: _load(entry / f"label-{task}.npy") for task in meta["labels"]},
            grid=_grid(meta["grid"]),
            native=_grid(meta["native"]),
            statistics=tuple(meta["statistics"]),
            foreground={
                task: {value: _load(entry / f"places-{task}-{value}.npy") for value in values}
                for task, values in meta["foreground"].items()
            },
            sha256=meta["sha256"],
        )


def _write(prepared: Prepared, folder: Path) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {"image.npy": prepared.image_CDHW}
    arrays |= {f"label-{task}.npy": label for task, label in prepared.labels.items()}
    for task, values in prepared.foreground.items():
        arrays |= {f"places-{task}-{value}.npy": places for value, places in values.items()}
    for name, array in arrays.items():
        with open(folder / name, "xb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    meta: Mapping[str, Any] = {
        "case_id": prepared.case_id,
        "labels": list(prepared.labels),
        "foreground": {task: list(values) for task, values in prepared.foreground.items()},
        "grid": {"shape": list(prepared.grid.shape), "affine": prepared.grid.affine.tolist()},
        "native": {"shape": list(prepared.native.shape), "affine": prepared.native.affine.tolist()},
        "statistics": [dict(statistics) for statistics in prepared.statistics],
        "sha256": dict(prepared.sha256),
        "arrays": {name: sha256_file(folder / name) for name in arrays},
    }
    write_json(folder / META, meta)


def _load(path: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _grid(data: Mapping[str, Any]) -> Grid:
    d, h, w = data["shape"]
    return Grid((d, h, w), np.array(data["affine"], dtype=np.float64))
