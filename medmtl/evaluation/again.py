"""An evaluation that was made, found again by what was evaluated."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from medmtl.errors import InputError
from medmtl.evaluation.external import external_name, external_selection, refuse_part
from medmtl.evaluation.place import own_folder
from medmtl.evaluation.score import Scores, load_scores, own_selection, stored_answers
from medmtl.evaluation.source import refuse_other
from medmtl.run_folder import RunFolder, open_folds
from medmtl.run_place import folder_of, refuse_links

OPTIONS = {"val": (), "train": ("--split", "all")}  # with which evaluate scores a split, where not by its own name


def load_evaluation(run: str | Path, config: Path | None, split: str | None) -> tuple[Scores, Sequence[RunFolder]]:
    """The evaluation in a run's own folder, and the runs.

    Args:
        run: a run folder or a folder of folds.
        config: another cohort's configuration; None for the run's own cohort.
        split: None is ``val``, or all of another cohort.

    Raises:
        InputError: if it was not evaluated yet, its folder is a link, or another cohort was evaluated there.
    """
    runs = open_folds(folder_of(run, "run"))
    if config is not None:
        refuse_part(split)
        folder = own_folder(runs, run, external_name(config))
        refuse_links(folder.parents[1], (folder,))
        _refuse_unevaluated(folder, f"the cohort of {config}", run, "--config", str(config))  # before a long check
        selection = external_selection(runs, config, allow_overlap=True)
        refuse_other(selection, folder, own=True)
    else:
        part = split or "val"
        folder = own_folder(runs, run, part)
        refuse_links(folder.parents[1], (folder,))
        selection = own_selection(runs, part)
        _refuse_unevaluated(folder, f"the {part} split", run, *OPTIONS.get(part, ("--split", part)))
    return load_scores(selection, folder), runs


def _refuse_unevaluated(folder: Path, what: str, run: str | Path, *options: str) -> None:
    if not stored_answers(folder):
        command = shlex.join(["medmtl", "evaluate", str(run), *options])
        raise InputError(f"{what} was not evaluated yet; run {command} first")
