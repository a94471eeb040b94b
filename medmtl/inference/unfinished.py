"""What a training still lacks when its models are asked: the last steps of a run, or whole folds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmtl.run_cohort import refuse_mixed
from medmtl.run_folder import RunFolder, open_folds

logger = logging.getLogger(__name__)


def open_models(path: Path) -> list[RunFolder]:
    """The run at ``path``, or the folds in it, of which those that are not there yet are warned about.

    Raises:
        InputError: as :func:`medmtl.run_folder.open_folds`.
        ArtefactError: as :func:`medmtl.run_cohort.refuse_mixed`.
    """
    runs = open_folds(path)
    refuse_mixed(runs)
    if runs[0].path != path.absolute():  # a single fold that is asked for by itself lacks nothing
        held = dict.fromkeys(run.load_manifest()["fold"] for run in runs)
        planned = len(runs[0].load_splits().folds)
        if len(held) < planned:
            logger.warning(
                "only folds %s of %d are in %s; train the others with medmtl train ... --fold all --resume",
                ", ".join(map(str, held)),
                planned,
                path,
            )
    return runs


def unfinished(run: RunFolder, step: int) -> dict[str, Any] | None:
    """How far a run is that is not trained to its end; the first call for a run warns of it.

    Args:
        run: the run.
        step: after which the weights in use were committed.

    Returns:
        None for a finished run, else ``fold``, ``step`` and ``steps``; ``steps`` is None where the minutes of the
        training were not yet turned into steps.
    """
    steps = run.load_plan().steps
    if step == steps:
        return None
    found = {"fold": run.load_manifest()["fold"], "step": step, "steps": steps}
    if not run.is_told_unfinished:
        run.is_told_unfinished = True
        logger.warning("%s stopped at %s; finish it with medmtl train ... --resume", run.path, progress_of(found))
    return found


def progress_of(found: Mapping[str, Any]) -> str:
    """What :func:`unfinished` found, in words."""
    length = "a training in minutes" if found["steps"] is None else found["steps"]
    return f"step {found['step']} of {length}"
