"""The learner's whole state, kept in a run folder and brought back: a resume is exact, or says that it is not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from medmtl import checkpoint
from medmtl.errors import ArtefactError
from medmtl.model import refuse_other_tensors
from medmtl.run_folder import RunFolder
from medmtl.tasks.learning import load_states, states_of
from medmtl.training.session import Session
from medmtl.training.step import Learner

STATE_PARTS = ("made_with", "optimiser", "weighting", "scaler", "skipped")

logger = logging.getLogger(__name__)


def save(session: Session, steps_done: int) -> None:
    """Commit the learner's whole state after ``steps_done`` steps."""
    # the log first: a commit must not outlive the lines that led to it
    session.run.sync_log()
    learner = session.learner
    tensors, groups = checkpoint.optimiser_tensors(learner.optimiser, _parameter_names(learner))
    parts = {"model": dict(learner.model.state_dict()), "optimiser": tensors}
    own = dict(learner.weighting.state_dict())
    if own:
        parts["weighting"] = own
    if learner.average is not None:
        parts["average"] = learner.average.tensors
    state: dict[str, Any] = {
        "made_with": session.run.made_with(),
        "optimiser": groups,
        "weighting": learner.weighting.extra_state(),
        "scaler": learner.scaler.state_dict() if learner.scaler is not None else None,
        "skipped": learner.skipped,
    }
    remembered = states_of(learner.tasks)
    if remembered:
        state["tasks"] = remembered
    checkpoint.save(session.run.checkpoints, steps_done, parts, state, keep=session.config.training.keep)


def restore(session: Session) -> int:
    """Bring the learner to the newest commit; returns the steps done, 0 where there is none.

    Where versions or hardware are not those of the start, a warning and a line of the log say that the result need not
    be the same to the last bit.

    Raises:
        ArtefactError: if commits exist and none is whole, or one is another run's or lacks a part that an exact resume
            needs.
    """
    stored = session.run.newest()
    if stored is None:
        return 0
    learner = session.learner
    own = dict(learner.weighting.state_dict())
    _refuse_other_parts(stored, learner, own)
    learner.model.load_weights(stored.tensors["model"])
    if learner.average is not None:
        learner.average.load(stored.tensors["average"])
    if own:
        refuse_other_tensors("weighting's tensors", own, stored.tensors["weighting"])
        learner.weighting.load_state_dict(stored.tensors["weighting"])
    try:
        checkpoint.load_optimiser(
            learner.optimiser, _parameter_names(learner), stored.tensors["optimiser"], stored.state["optimiser"]
        )
        learner.weighting.load_extra_state(stored.state["weighting"])
        if learner.scaler is not None:
            learner.scaler.load_state_dict(stored.state["scaler"])
        learner.skipped = int(stored.state["skipped"])
        load_states(learner.tasks, stored.state.get("tasks", {}))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"cannot resume exactly: the state of step {stored.step} does not fit this run ({error})", code="B155"
        ) from error
    _tell_differences(session.run, stored.step, learner.joint.ranks.size if learner.joint else 1)
    return int(stored.step)


def _refuse_other_parts(stored: checkpoint.Checkpoint, learner: Learner, weighting: Mapping[str, torch.Tensor]) -> None:
    """A resume is exact or is refused: no part is missing, and none is there that nobody would read."""
    wanted = {"model", "optimiser"} | ({"average"} if learner.average is not None else set())
    wanted |= {"weighting"} if weighting else set()
    found = {*stored.tensors, *stored.state}
    parts = {*STATE_PARTS, *(["tasks"] if states_of(learner.tasks) else [])}
    missing = wanted - set(stored.tensors) | parts - set(stored.state)
    if learner.scaler is not None and stored.state.get("scaler") is None:
        missing.add("scaler")
    if missing:
        raise ArtefactError(
            f"cannot resume exactly: step {stored.step} lacks {', '.join(sorted(missing))}; start a new run",
            code="B155",
        )
    unknown = found - wanted - parts
    if unknown:
        raise ArtefactError(
            f"step {stored.step} holds {', '.join(sorted(unknown))}, which this run does not know; start a new run",
            code="B160",
        )


def _tell_differences(run: RunFolder, step: int, processes: int) -> None:
    differences = run.differences(processes)
    if differences:
        run.log({"step": step, "not_bit_exact": differences})
        shown = ", ".join(f"{name} {then} then and {now} now" for name, (then, now) in differences.items())
        logger.warning("[B156] resuming is not bit-exact: %s", shown)


def _parameter_names(learner: Learner) -> dict[torch.nn.Parameter, str]:
    named = {parameter: name for name, parameter in learner.model.named_parameters()}
    return {**named, **{p: f"weighting.{name}" for name, p in learner.weighting.named_parameters()}}
