"""What a training and its validation draw their batches from, view by view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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
from medmtl.distributed import ALONE, Ranks
from medmtl.planning import Plan
from medmtl.planning.shown_labels import shown_labels
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import Task
from medmtl.tasks.voxel import LabelTask
from medmtl.training.start import open_cache


def make_views(
    run: RunFolder,
    config: Config,
    plan: Plan,
    tasks: Mapping[str, Task],
    cases: Sequence[Case],
    truths: Mapping[str, Mapping[str, Any]],
    *,
    augment: bool,
    ranks: Ranks = ALONE,
) -> StepViews:
    """One dataset per view, for the tasks that see it.

    Args:
        run: whose cache is read.
        config, plan, tasks: of the run.
        cases: to draw from.
        truths: task -> case id -> target; those that no view shows, or that teach nothing, are left out.
        augment: whether they are drawn and augmented as in training; otherwise each comes once, as it is.
        ranks: the processes that train; of each joint batch this one gets its own samples.
    """
    truths = {name: _taught(tasks[name], cases, found) for name, found in shown_labels(plan, cases, truths).items()}

    def make(view: View, preparation: Preparation, batch: int, seeing: Sequence[str]) -> StepDataset:
        cache = open_cache(config, run.path, preparation)
        learning = {name: tasks[name] for name in seeing}
        order: Order = _order(config, batch, learning, cases, truths) if augment else AsListed(len(cases))
        if augment and view.kind == "case" and config.training.sampling == "even":
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
            teaches={name: partial(_teaches, task) for name in seeing if isinstance(task := tasks[name], LabelTask)},
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


def _teaches(task: LabelTask, case: Case) -> bool:
    return len(task.untaught(case)) < task.parts


def _taught(task: Task, cases: Sequence[Case], truths: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of a task without those of cases that teach it nothing."""
    empty = {case.case_id for case in cases if isinstance(task, LabelTask) and not _teaches(task, case)}
    return {case_id: target for case_id, target in truths.items() if case_id not in empty}


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
