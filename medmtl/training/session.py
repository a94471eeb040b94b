"""A run folder opened for training: the same for a fresh start and for a resume."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from medmtl import checkpoint
from medmtl.build import build_model, build_tasks, build_weighting
from medmtl.config import Config
from medmtl.data.augmentation import AXES, Augmentation
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.cohort_order import CohortOrder
from medmtl.data.crop import Triple, whole_shape
from medmtl.data.loader import StepDataset, StepViews
from medmtl.data.order import AsListed, CaseOrder, Order
from medmtl.data.prepared import Preparation
from medmtl.data.shape_order import ShapeOrder
from medmtl.data.view import View
from medmtl.device import describe_device
from medmtl.distributed import ALONE, Ranks
from medmtl.errors import ArtefactError
from medmtl.model import refuse_other_tensors
from medmtl.planning import Plan
from medmtl.run_cohort import read_again
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import Task
from medmtl.tasks.learning import load_states, states_of
from medmtl.tasks.voxel import LabelTask
from medmtl.training.average import WeightAverage
from medmtl.training.optimiser import make_optimiser
from medmtl.training.ranks import JointStep, refuse_too_many
from medmtl.training.room import refuse_small_shared_memory
from medmtl.training.start import open_cache
from medmtl.training.step import Learner
from medmtl.training.task_schedule import TaskSchedule
from medmtl.training.transfer import load_trunk

VALIDATION_CASES = 16
STATE_PARTS = ("made_with", "optimiser", "weighting", "scaler", "skipped")

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """Everything a training needs, built from what the run folder says and nothing else.

    Attributes:
        run, config, plan: the run.
        learner: model, optimiser and their state.
        training, validation: batches by step; ``validation`` is None where the fold has no validation cases.
    """

    run: RunFolder
    config: Config
    plan: Plan
    learner: Learner
    training: StepViews
    validation: StepViews | None


def open_session(run: RunFolder, ranks: Ranks = ALONE, config: Config | None = None) -> Session:
    """Build the learner and the data of a run.

    Args:
        run: the run.
        ranks: the processes that train it; of each joint batch this one gets its own samples.
        config: the run's, where what is free on resume is to be other than in its folder.

    Raises:
        CohortError: if the cohort changed since the run was started.
        InputError: if it cannot be trained on several processes.
        MachineError: if the run's device is absent, or its batches do not fit the shared memory.
    """
    config = config or run.load_config()
    plan = _plan(run, config)
    describe_device(plan.device)
    torch.set_num_threads(ranks.share(plan.threads))
    tasks = build_tasks(config, plan.tasks)
    refuse_small_shared_memory(plan, tasks)
    train, val, truths = _cases(run, config)
    device = ranks.device(plan.device)
    torch.manual_seed(config.training.seed)
    model = build_model(config, plan, tasks).to(device)
    held: tuple[str, ...] = ()
    if config.init is not None:
        initial = run.load_initial()
        load_trunk(model, initial)
        held = tuple(initial) if config.init.freeze else ()
    weighting = build_weighting(config).to(device)
    training = _datasets(run, config, plan, tasks, train, truths, augment=True, ranks=ranks)
    refuse_too_many(ranks.size, *(view.batch for view in training.views))
    case_tasks = frozenset(name for name, task in tasks.items() if not task.voxel)
    learner = Learner(
        model=model,
        weighting=weighting,
        optimiser=make_optimiser(model, weighting, case_tasks, config.training),
        average=WeightAverage(model, config.training.average_decay) if config.training.average else None,
        scaler=torch.amp.GradScaler(plan.device) if plan.precision == "fp16" else None,
        tasks=tasks,
        precision=plan.precision,
        clip=config.training.clip,
        seed=config.training.seed,
        device=device,
        prior_scale=config.weighting.loss_scale == "prior",
        epoch=len(training),
        frozen=held,
        frozen_steps=config.init.freeze if config.init else 0,
        times=TaskSchedule(
            tuple(tasks),
            config.training.tasks,
            config.training.alternate,
            config.training.seed,
            plan.steps,
            timed=plan.minutes is not None,
        ),
        telemetry=config.training.telemetry,
        joint=JointStep(ranks, model, training.views, device) if ranks.size > 1 else None,
    )
    watched = val[:VALIDATION_CASES]
    validation = _datasets(run, config, plan, tasks, watched, truths, augment=False) if watched else None
    return Session(run, config, plan, learner, training, validation)


def _plan(run: RunFolder, config: Config) -> Plan:
    """The run's, with the loader processes that are asked for."""
    plan = run.load_plan()
    return plan if config.plan.workers is None else replace(plan, workers=config.plan.workers)


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


def _cases(run: RunFolder, config: Config) -> tuple[list[Case], list[Case], Any]:
    cohort, truths = read_again(config, run)
    splits, fold = run.load_splits(), run.load_manifest()["fold"]
    cases = {case.case_id: case for case in cohort.cases}
    if fold == "none":
        return [case for name, case in cases.items() if name not in set(splits.test)], [], truths
    part = splits.folds[fold]
    return [cases[name] for name in part.train], [cases[name] for name in part.val], truths


def _datasets(
    run: RunFolder,
    config: Config,
    plan: Plan,
    tasks: dict[str, Task],
    cases: list[Case],
    truths: Any,
    *,
    augment: bool,
    ranks: Ranks = ALONE,
) -> StepViews:
    """One dataset per view, for the tasks that see it."""

    def make(view: View, preparation: Preparation, batch: int, seeing: Sequence[str]) -> StepDataset:
        cache = open_cache(config, run.path, preparation)
        order: Order = AsListed(len(cases))
        if augment:
            order = _order(config, batch, {name: tasks[name] for name in seeing}, cases, truths)
            if view.kind == "case" and config.training.sampling == "even":
                shapes = _own_shapes(cases, cache, view, plan.network.divisor)
                order = ShapeOrder(order, shapes, batch, config.training.seed)
        return StepDataset(
            cases=cases,
            cache=cache,
            encoders={name: tasks[name].encode for name in seeing},
            voxel=[name for name in seeing if tasks[name].voxel],
            truths=truths,
            view=view,
            divisor=plan.network.divisor,
            batch=batch if augment else 1,
            slots=ranks.slots(batch) if augment else (0,),
            order=order,
            seed=config.training.seed,
            intensities=plan.intensities,
            augmentation=_augmentation(config, preparation) if augment else None,
            # what is done to the image changes nothing for a task that does not read it
            sensitive={name: tasks[name].sensitive_to for name in seeing if tasks[name].reads_image},
            covariates=plan.covariates,
            notes={name: task.noted for name in seeing if isinstance(task := tasks[name], LabelTask)},
        )

    second = plan.case_view
    main = [name for name in tasks if second is None or name not in second.tasks]
    views = [make(View(plan.view, plan.shape), plan.preparation, plan.batch, main)] if main else []
    if second is not None:
        ignored = plan.preparation.ignored.get(second.around) if second.around else None
        view = View(second.kind, second.shape, second.tiles, second.around, ignored)
        views.append(make(view, second.preparation, second.batch, second.tasks))
    return StepViews(views)


def _augmentation(config: Config, preparation: Preparation) -> Augmentation:
    flips = () if config.augmentation.flips == "none" else tuple(AXES[name] for name in config.augmentation.flips)
    return Augmentation(preparation.spacing, flips, enabled=config.augmentation.kind != "none")


def _own_shapes(cases: Sequence[Case], cache: PreparedCache, view: View, divisor: Triple) -> list[Triple]:
    """Of each case, the sample that it would have alone."""
    sizes = [cache.get(case).image_CDHW.shape[1:] for case in cases]
    return [whole_shape([size], view.shape, divisor) for size in sizes]


def _order(
    config: Config, batch: int, tasks: Mapping[str, Task], cases: Sequence[Case], truths: Mapping[str, Any]
) -> Order:
    seed = config.training.seed
    if config.training.sampling == "even":
        # a case without a label for any of the view's tasks teaches nothing
        taught = [any(case.case_id in truths[name] for name in tasks) for case in cases]
        if len({case.cohort for case in cases}) > 1:
            own = [(case.cohort or "") if teaches else None for case, teaches in zip(cases, taught, strict=True)]
            return CohortOrder(own, batch, seed)
        return CaseOrder.even([place for place, teaches in enumerate(taught) if teaches], batch, seed)
    chosen = [case.case_id for case in cases]
    targets = {name: {key: truths[name][key] for key in chosen if key in truths[name]} for name in tasks}
    groups = {name: task.sampling_groups(targets[name]) for name, task in tasks.items()}
    asked = {name: found for name, found in groups.items() if found is not None}
    return CaseOrder.labelled(chosen, targets, asked, batch, seed)
