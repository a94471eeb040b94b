"""The training loop, top to bottom."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from medmtl import checkpoint
from medmtl.config import Config
from medmtl.data.batch import Batch
from medmtl.data.workers import make_loader
from medmtl.device import peak_bytes, peak_resident_bytes, true_fp32
from medmtl.disk import why
from medmtl.distributed import ALONE, Ranks
from medmtl.errors import InterruptedRun, WorkError
from medmtl.files import write_json
from medmtl.freed_memory import freed_memory_kept
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.training.average import looking
from medmtl.training.collapse import collapse_check
from medmtl.training.commit import restore, save
from medmtl.training.finish import finish_tasks
from medmtl.training.folds import as_asked
from medmtl.training.optimiser import Schedule, scheduled_factor
from medmtl.training.ranks import OthersRun
from medmtl.training.session import Session, open_session
from medmtl.training.signals import Requests
from medmtl.training.step import StepRecord, task_losses, train_step

logger = logging.getLogger(__name__)

WARM_STEPS = 20  # after which minutes become a number of steps
UNTIMED_STEPS = 5  # allocation and the loader's start make the first ones slower
EARLY_FROM = 60  # steps of a training from which its heads are judged early too: in a shorter one it saves nothing
SAVE_TRIES = 3  # intervals without a commit, after which a run with a failing disk is not worth going on with


@dataclass
class _Clock:
    """Time of this process's part of the run; kept out of everything that must be equal on resume."""

    begin: float
    waiting: float = 0.0
    ends: list[float] = field(default_factory=list)


@freed_memory_kept()
@true_fp32()
def train_run(
    run: RunFolder,
    *,
    asked: Config | None = None,
    resumed: bool = False,
    more: bool = False,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> None:
    """Train a run from its newest commit, or from step 0 where there is none, to its end.

    Args:
        run: made by :func:`medmtl.training.start.start_run`.
        asked: the configuration that was asked for, which may differ from the run's in what is free on resume.
        ranks: the processes that train it, each of which calls this; the first one alone writes.
        resumed: whether somebody asked to go on; a start at step 0 is then said.
        more: whether the next fold is trained after this one.
        progress: called at every step.

    Raises:
        InterruptedRun: after a commit, if a signal asked for an end; after the last step only where there is more.
        NumericError: if a loss, gradient or weight is not finite; nothing of that step is kept.
        BusyRunError: if another process is training this run.
    """
    run = run if ranks.is_first else OthersRun(run.path)
    config = run.load_config() if asked is None else as_asked(run.load_config(), asked)
    with ExitStack() as held:
        requests = held.enter_context(Requests(ranks))
        if not ranks.first(lambda: _is_done(run, held, config.training.keep)):
            session = open_session(run, ranks, config)
            first = restore(session)
            run.truncate_log(first)
            if first or resumed:
                logger.info("resuming after step %d%s", first, "" if first else ", because nothing was committed yet")
            ranks.meet()
            _loop(session, first, requests, progress, ranks)
        requests.agree()
        if more and requests.stop:
            raise InterruptedRun(f"stopped by {requests.stop} after {run.path.name}; go on with --resume")


def _is_done(run: RunFolder, held: ExitStack, keep: int) -> bool:
    """Whether there is nothing to train; the run is then locked."""
    held.enter_context(run.lock())
    checkpoint.tidy(run.checkpoints, keep=keep)
    if run.is_finished():
        logger.info("%s is already trained to its last step", run.path.name)
        return True
    return False


def _loop(session: Session, first: int, requests: Requests, progress: Progress, ranks: Ranks) -> None:
    clock = _Clock(time.perf_counter())
    limit = session.plan.steps
    schedule = Schedule(limit, fixed_warm_up=session.plan.minutes is not None)
    loader = make_loader(session.training, first, limit, ranks.share(session.plan.workers), session.learner.device)
    step, failed, committed = first, 0, first
    if ranks.first(lambda: _owes_validation(session, first)):
        ranks.first(lambda: _validate(session, first, requests))
    if first and first == _early_step(limit) and ranks.first(lambda: not _has_verdicts(session, first)):
        ranks.first(lambda: _judge_heads(session, first, requests))
    with closing(loader):
        while limit is None or step < limit:
            batch = _next(loader, clock, requests)
            if batch is None:
                if step != committed:
                    _commit(session, step, failed, ranks, last=True)
                raise _interrupted(requests, step)
            requests.watch()
            factor = scheduled_factor(session.learner.optimiser, schedule, step)
            record = train_step(session.learner, batch, factor)
            step += 1
            clock.ends.append(time.perf_counter())
            session.run.log(_log_record(session, record, step, factor, clock))
            if record.conflict is not None:
                session.run.log({"step": step, "conflict": record.conflict})
            if limit is None and step == first + WARM_STEPS:
                limit = _settle_length(session, step, clock, ranks)
                schedule = replace(schedule, steps=limit)
            due = step % session.config.training.checkpoint_every == 0 or step == limit
            _look(session, step, requests, ranks, due=due, limit=limit)
            requests.agree()
            if due or requests.commit or requests.stop:
                requests.commit = False
                failed = _commit(session, step, failed, ranks, last=step == limit or requests.stop is not None)
                committed = step if not failed else committed
            progress("train", step, limit or 0, _note(record))
    _tell_timing(session, step, first, clock)


def _look(session: Session, step: int, requests: Requests, ranks: Ranks, *, due: bool, limit: int | None) -> None:
    """What the first process does between two steps: it looks at the weights, which stay as they are."""
    if due:
        ranks.first(lambda: _validate(session, step, requests))
    if step == limit:
        ranks.first(lambda: finish_tasks(session))
    if step in (limit, _early_step(limit)):
        ranks.first(lambda: _judge_heads(session, step, requests))


def _next(loader: Iterator[Batch], clock: _Clock, requests: Requests) -> Batch | None:
    """The next batch; None where the run is asked to stop instead.

    Whoever stops a run may kill its workers too: then their end is no failure.
    """
    if requests.stop:
        return None
    asked = time.perf_counter()
    try:
        batch = next(loader)
    except WorkError:
        if requests.stop:
            return None
        raise
    clock.waiting += time.perf_counter() - asked
    return batch


def _interrupted(requests: Requests, step: int) -> InterruptedRun:
    return InterruptedRun(f"stopped by {requests.stop} after step {step}; go on with --resume")


def _commit(session: Session, step: int, failed: int, ranks: Ranks, *, last: bool) -> int:
    """Commit; a disk that fails is tried again at the next interval. Returns how often in a row it has failed.

    Raises:
        NumericError: if the processes' weights are not the same.
        WorkError: at the third failure in a row, or where there is no next interval.
    """
    if session.learner.joint is not None:
        session.learner.joint.refuse_apart(step)
    return ranks.first(lambda: _save(session, step, failed, last=last))


def _save(session: Session, step: int, failed: int, *, last: bool) -> int:
    try:
        save(session, step)
    except OSError as error:
        if last or failed + 1 == SAVE_TRIES:
            raise WorkError(
                f"step {step} could not be committed ({why(error)}); the commit before it is whole: go on with --resume"
            ) from error
        logger.warning("step %d could not be committed (%s); trying again at the next interval", step, why(error))
        return failed + 1
    return 0


def _settle_length(session: Session, step: int, clock: _Clock, ranks: Ranks) -> int:
    """Turn minutes into steps once 20 warm steps were timed, and keep the number in ``plan.json``.

    The median step counts: a single slow one at the start, while files are still being read, must not shorten the run.
    """
    assert session.plan.minutes is not None
    timed = clock.ends[UNTIMED_STEPS:]
    seconds_each = median(after - before for before, after in itertools.pairwise(timed))
    left = session.plan.minutes * 60 - (clock.ends[-1] - clock.begin)
    own = step + max(1, int(left / (seconds_each * (1 + _validation_share(session)))))
    limit = ranks.first(lambda: own)  # every process has a clock of its own
    session.plan = replace(
        session.plan,
        steps=limit,
        reasons={**session.plan.reasons, "steps": f"{session.plan.minutes:g} minutes at {seconds_each:.3f} s a step"},
    )
    session.learner.times = replace(session.learner.times, steps=limit)
    if ranks.is_first:
        # the loader processes that this call asked for are its own
        kept = replace(session.plan, workers=session.run.load_plan().workers)
        write_json(session.run.plan, kept.to_json())
    return limit


def _validation_share(session: Session) -> float:
    """Time of one validation against the training steps between two; a forward pass costs a third of a step."""
    if session.validation is None:
        return 0.0
    samples = len(session.validation)
    return samples / 3 / (session.config.training.checkpoint_every * session.training.views[0].batch)


def _log_record(session: Session, record: StepRecord, step: int, factor: float, clock: _Clock) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": round(session.training.epoch(step), 4),
        "losses": dict(record.losses),
        "weights": dict(record.weights),
        "gradient_norms": dict(record.gradient_norms),
        "rate_factor": factor,
        **({"skipped": True} if record.skipped else {}),
        "seconds": round(time.perf_counter() - clock.begin, 3),
    }


def _owes_validation(session: Session, first: int) -> bool:
    """Whether the run was stopped at the validation of its newest commit."""
    if not first or first % session.config.training.checkpoint_every:
        return False
    return not any(record["step"] == first and "validation" in record for record in session.run.read_log())


@torch.inference_mode()
def _validate(session: Session, step: int, requests: Requests) -> None:
    """Losses of the averaged weights on some validation cases: a curve to look at, never a choice.

    Left out where the run is asked to stop, which may not wait for it; a resume makes up for that. Not at the last
    step, after which there is no resume.
    """
    if session.validation is None:
        return
    learner = session.learner
    sums: dict[str, list[float]] = {}
    with looking(learner.model, learner.average):
        for index in range(len(session.validation)):
            if requests.heard and step != session.plan.steps:
                return
            for view in session.validation[index].views.values():
                for name, loss in task_losses(learner, view.to(learner.device), step, remember=False).items():
                    sums.setdefault(name, []).append(float(loss.detach()))
    if requests.heard and step != session.plan.steps:
        return
    session.run.log({"step": step, "validation": {name: sum(v) / len(v) for name, v in sums.items()}})


def _early_step(limit: int | None) -> int | None:
    """The step after which heads are judged the first time, a third of the way; None where only the end is judged."""
    return limit // 3 if limit is not None and limit >= EARLY_FROM else None


def _has_verdicts(session: Session, step: int) -> bool:
    return any(record["step"] == step and "collapse" in record for record in session.run.read_log())


def _judge_heads(session: Session, step: int, requests: Requests) -> None:
    """Say which heads are dead. As with a validation, a request to stop does not wait for it but at the last step."""
    limit, fold = session.plan.steps, session.run.load_manifest()["fold"]
    early = step if step != limit else 0
    verdicts = collapse_check(session, early=early, stopped=lambda: early > 0 and requests.heard is not None)
    for name, verdict in verdicts.items():
        session.run.log({"step": step, "collapse": {"task": name, **verdict}})
        if early and verdict["verdict"] == "collapsed":
            logger.warning("task %s, fold %s, after %d of %d steps: %s", name, fold, step, limit, verdict["sentence"])
        elif not early and verdict["verdict"] != "trained":
            logger.warning("task %s, fold %s: %s", name, fold, verdict["sentence"])


def _tell_timing(session: Session, step: int, first: int, clock: _Clock) -> None:
    seconds = time.perf_counter() - clock.begin
    peak = peak_bytes(session.learner.device)
    workers = peak_resident_bytes(of_children=True)
    session.run.log(
        {
            "step": step,
            "timing": {
                "seconds": round(seconds, 1),
                "steps": step - first,
                "waiting_share": round(clock.waiting / seconds, 4),
                "peak_memory_bytes": peak,
                "worker_peak_memory_bytes": workers,
                "planned_memory_bytes": session.plan.memory_bytes,
            },
        }
    )
    logger.info(
        "%d steps in %.0f s; loading took %.1f %%; peak memory %.2f GB (planned %.2f GB)",
        step - first,
        seconds,
        100 * clock.waiting / seconds,
        peak / 1e9,
        session.plan.memory_bytes / 1e9,
    )


def _note(record: StepRecord) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
