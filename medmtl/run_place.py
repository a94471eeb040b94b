"""Where a run may be made, and what may be given for one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from medmtl.disk import is_open_to_others, probe, refuse_file, refuse_long
from medmtl.errors import ArtefactError, InputError

MAGIC_BYTES = 8
FOREIGN_MODELS = {
    b"PK\x03\x04": "a zip archive, as torch.save and TorchScript write",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a numpy file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x1f\x8b": "a compressed file",
}
FOREIGN_ENDINGS = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".onnx", ".zip", ".h5", ".safetensors"}

_FOLD = re.compile(r"fold-([0-9]+)")

_log = logging.getLogger(__name__)


def folder_of(given: object, name: str) -> Path:
    """The path of a folder, of which a script may give something else by mistake.

    Args:
        given: what was given.
        name: of the argument.

    Raises:
        InputError: it is no path.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{name} is the path of a folder, found a {type(given).__name__}")
    return Path(given)


def is_run(path: Path) -> bool:
    """Whether a run lies there."""
    return (path / "manifest.json").is_file()


def folds_in(path: Path) -> list[Path]:
    """What is called ``fold-K`` in a folder, in the order of the numbers; nothing where there is no folder."""
    entries = path.iterdir() if path.is_dir() else ()
    numbered = [(int(match[1]), entry) for entry in entries if (match := _FOLD.fullmatch(entry.name))]
    return [entry for _, entry in sorted(numbered)]


def holds_folds(path: Path) -> bool:
    """Whether runs of folds lie in a folder."""
    return any(map(is_run, folds_in(path)))


def refuse_run(out: Path, *, evaluation: bool = False) -> None:
    """Refuse a run, a folder of a run's folds, or a file as the place of anything else's results.

    Args:
        out: where the results would lie.
        evaluation: whether they are an evaluation's, which may lie in the ``evaluation/`` of a run.

    Raises:
        InputError: if it is one, or lies in one.
    """
    refuse_file(out)
    if is_run(out) or holds_folds(out):
        raise InputError(f"{out} is a run, and nothing is merged into one; choose another --out", code="B165")
    place = out.resolve()
    for run in _runs_around(place):
        if not (evaluation and place.is_relative_to(run / "evaluation")):
            raise InputError(
                f"{out} lies in the run {run}, and only its evaluation/ takes results, those of evaluate; choose "
                "another --out",
                code="B165",
            )


def _runs_around(place: Path) -> list[Path]:
    """The folders above a place that are runs; somebody else's manifest.json makes no run."""
    return [path for path in place.parents if is_run(path) and (path / "checkpoints").is_dir()]


def refuse_links(base: Path, folders: Iterable[Path]) -> None:
    """Refuse links where folders are made or filled: what is written would lie elsewhere.

    Args:
        base: what was given, which may be a link itself, or lie behind one.
        folders: below it.

    Raises:
        InputError: naming the link.
    """
    for folder in folders:
        for path in (folder, *folder.parents):
            if path == base:
                break
            if path.is_symlink():
                raise InputError(
                    f"{path} is a link, and results would be written to where it leads; put a folder there, or choose "
                    "another --out",
                    code="B165",
                )


def refuse_place(out: Path, *inputs: Path, folds: bool = False) -> None:
    """Refuse a place where a run must not be made.

    A parent that others may write to is warned about (B049); the run itself is made for its owner only.

    Args:
        out, inputs, folds: as in :func:`refuse_taken`.

    Raises:
        InputError: as :func:`refuse_taken`.
        MachineError: if its disk refuses what a run needs of it.
    """
    refuse_taken(out, *inputs, folds=folds)
    place = out.resolve()
    probe(place.parent)
    if place.parent.is_dir():
        warn_of_others(place.parent)


def refuse_taken(out: Path, *inputs: Path, folds: bool = False) -> None:
    """Refuse a place where something else is, without a try of its disk.

    Args:
        out: where the run would be.
        inputs: files that are read, such as the cohort's table, or folders.
        folds: whether the runs are made inside; what a killed start of one left there is hidden and does not count.

    Raises:
        InputError: if it is a link or a mount point, exists and is not empty, would lie in a file or a run, holds an
            input or the home folder, or is a repository.
    """
    refuse_long(out)
    if out.is_symlink():
        raise InputError(f"{out} is a link; give the folder itself as --out", code="B043")
    if os.path.ismount(out) and not folds:
        raise InputError(
            f"{out} is where a disk is mounted, and a run appears by renaming a folder to it; give a folder inside it, "
            f"such as {out / 'run'}",
            code="B043",
        )
    refuse_file(out.parent)
    place = out.resolve()
    folders = [path if path.is_dir() else path.parent for path in (path.resolve() for path in inputs)]
    if any(folder.is_relative_to(place) for folder in (*folders, Path.home().resolve())) or (place / ".git").exists():
        raise InputError(
            f"{out} cannot become a run folder: it is or holds the cohort, your home or a repository; give a new "
            "folder as --out",
            code="B043",
        )
    around = _runs_around(place)
    if around:
        raise InputError(
            f"{out} lies in the run {around[0]}, and no run is made in another; choose another --out", code="B043"
        )
    if is_taken(place, hidden=not folds):
        way = ", or --resume it" if is_run(place) else ""
        if holds_folds(place):
            way = ", or resume its folds with --fold all --resume"
        raise InputError(f"{out} exists and is not empty; choose another --out{way}", code="B042")


def refuse_model_file(path: Path) -> None:
    """Refuse a file given for a run; of its content only the first bytes are looked at."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        start = file.read(MAGIC_BYTES)
    kind = next((name for magic, name in FOREIGN_MODELS.items() if start.startswith(magic)), None)
    if kind is None and path.suffix.lower() in FOREIGN_ENDINGS:
        kind = f"a {path.suffix.lower()} file"
    if kind is not None:
        raise ArtefactError(
            f"{path} is {kind}, and medmtl opens its own run folders only, so that no file can run code; give one",
            code="B150",
        )


def warn_of_others(folder: Path) -> None:
    """Say so where other users could replace what lies in a folder."""
    if is_open_to_others(folder):
        _log.warning("[B049] other users may write to %s and so replace the run; chmod go-w takes that away", folder)


def is_taken(place: Path, *, hidden: bool = True) -> bool:
    """Whether something stands at a place; an empty folder does not count, nor one of nothing but hidden entries
    unless ``hidden``.
    """
    if not place.is_dir():
        return place.exists()
    return any(hidden or not entry.name.startswith(".") for entry in place.iterdir())
