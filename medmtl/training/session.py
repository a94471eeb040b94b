"""A run folder opened for training: the same for a fresh start and for a resume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from medmtl.build import build_model, build_tasks, build_weighting
from medmtl.config import Config
from medmtl.data.loader import StepViews
from medmtl.data.members import members
from medmtl.device import describe_device
from medmtl.distributed import ALONE, Ranks
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan
from medmtl.run_cohort import read_again
from medmtl.run_folder import RunFolder
from medmtl.training.average import WeightAverage
from medmtl.training.batches import make_views
from medmtl.training.optimiser import make_optimiser
from medmtl.training.ranks import JointStep, refuse_too_many
from medmtl.training.room import refuse_small_shared_memory
from medmtl.training.step import Learner
from medmtl.training.task_schedule import TaskSchedule
from medmtl.training.transfer import load_trunk

VALIDATION_CASES = 16


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
    cohort, truths = read_again(config, run)
    train, val = members(cohort.cases, run.load_splits(), run.load_manifest()["fold"])
    device = ranks.device(plan.device)
    torch.manual_seed(config.training.seed)
    model = build_model(config, plan, tasks).to(device)
    held = _begin(run, config, model)
    weighting = build_weighting(config).to(device)
    training = make_views(run, config, plan, tasks, train, truths, augment=True, ranks=ranks)
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
    validation = make_views(run, config, plan, tasks, watched, truths, augment=False) if watched else None
    return Session(run, config, plan, learner, training, validation)


def _plan(run: RunFolder, config: Config) -> Plan:
    """The run's, with the loader processes that are asked for."""
    plan = run.load_plan()
    return plan if config.plan.workers is None else replace(plan, workers=config.plan.workers)


def _begin(run: RunFolder, config: Config, model: MultiTaskModel) -> tuple[str, ...]:
    """Give the model the trunk that it starts from, where there is one; returns what of it is first held still."""
    if config.init is None:
        return ()
    initial = run.load_initial()
    load_trunk(model, initial)
    return tuple(initial) if config.init.freeze else ()
