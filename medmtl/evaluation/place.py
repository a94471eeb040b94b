"""Where an evaluation may be written: into a folder that is nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from medmtl.checking.outputs import refuse_overwriting
from medmtl.errors import InputError
from medmtl.evaluation.score import CASES, FINDINGS, METRICS, PAGE
from medmtl.evaluation.selection import SPLITS, parts_of
from medmtl.evaluation.source import SOURCE
from medmtl.inference.write import ACTIVATIONS, ANSWERS, TABLE, answer_folders
from medmtl.run_folder import RunFolder
from medmtl.run_place import refuse_links

RESULTS = (METRICS, CASES, ACTIVATIONS, FINDINGS, SOURCE, PAGE)  # beside masks, maps and boxes


def own_folder(runs: Sequence[RunFolder], run: str | Path, name: str) -> Path:
    """The folder of an evaluation in the run itself, or beside the folds of one.

    Args:
        runs: as opened.
        run: what was given for them.
        name: of the evaluation: a split, or another cohort's.
    """
    return runs[0].evaluation(name) if runs[0].path == Path(run).absolute() else Path(run) / "evaluation" / name


def own_folders(
    runs: Sequence[RunFolder], run: str | Path, split: str | None, out: str | Path | None
) -> dict[str, Path]:
    """Split -> the folder of its evaluation; of ``all`` those that hold a case, of None ``val``.

    Args:
        runs, run: as for :func:`own_folder`.
        split: what was asked for.
        out: where to write instead; of ``all`` each split into a folder of its own there.

    Raises:
        InputError: if there is no such split.
    """
    if split not in (None, "all", *SPLITS):
        raise InputError(f"no split is called {split!r}; known: {', '.join(SPLITS)} and all")
    parts = parts_of(runs) if split == "all" else [split or "val"]
    if out is None:
        return {name: own_folder(runs, run, name) for name in parts}
    return {name: Path(out) / name if split == "all" else Path(out) for name in parts}


def refuse_folder(folder: Path, inputs: Iterable[Path], *, out: str | Path | None) -> None:
    """Refuse a folder in which a result would replace what is none.

    Args:
        folder: where the evaluation would lie.
        inputs: files of the cohorts; looked at only if a file has the name of a result.
        out: what was given as the place: the folder or, of several splits, the folder above it. None for the run's own
            folder of evaluations, in which somebody else's files are not looked for.

    Raises:
        InputError: B048 if a result would replace an input; B165 if a folder is a link that medmtl would make itself;
            B042 if the folder holds predictions, or files of such names that are no evaluation's.
    """
    answers = (file for name in ANSWERS for file in folder.glob(f"{name}/*/*"))
    refuse_overwriting((*(folder / name for name in RESULTS), *answers), inputs)
    refuse_links(folder.parents[1] if out is None else Path(out), (folder, *answer_folders(folder)))
    if os.path.lexists(folder / TABLE):
        raise InputError(
            f"{folder} holds {TABLE}, and an evaluation would mix its masks with these predictions; choose another "
            "folder",
            code="B042",
        )
    if out is None:
        return
    if (folder / ACTIVATIONS).exists():  # the first thing that an evaluation writes
        return
    taken = next((name for name in (*ANSWERS, *RESULTS) if os.path.lexists(folder / name)), None)
    if taken is not None:
        raise InputError(
            f"{folder} holds {taken} but no {ACTIVATIONS}, so this is no evaluation and may be somebody's work; choose "
            "another folder",
            code="B042",
        )
