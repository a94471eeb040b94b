"""The only place where kinds named by a configuration become objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmtl import sharing, tasks, weighting
from medmtl.config import Config
from medmtl.data.covariates import feature_count
from medmtl.model import MultiTaskModel, SecondView
from medmtl.planning import Plan
from medmtl.tasks.base import Task
from medmtl.weighting.base import Weighting


def build_tasks(config: Config, fitted: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Task]:
    """The configured tasks by name, in the configured order.

    Args:
        config: the resolved configuration.
        fitted: per task what it learned from the training fold; None before planning.
    """
    return {
        name: tasks.kinds.get(options.kind)(name, options, (fitted or {}).get(name))
        for name, options in config.tasks.items()
    }


def build_model(config: Config, plan: Plan, fitted_tasks: Mapping[str, Task]) -> MultiTaskModel:
    """The network with one head per task, its weights drawn from torch's current random state."""
    kind = sharing.kinds.get(config.sharing.kind)
    voxel = {name: task.voxel for name, task in fitted_tasks.items() if task.reads_image}
    view = plan.case_view
    apart = view is not None and not view.share and len(voxel) > len(view.tasks)  # or nobody is left for the first one
    own = {name: voxel.pop(name) for name in view.tasks} if view is not None and apart else {}
    shared = kind(config.sharing, plan.network, config.network, voxel)
    second = None
    if view is not None:
        # norms that nobody trains would stay as they are while the voxel tasks' learn
        taught = config.training.head_gradient > 0
        second = SecondView(
            view.tasks,
            kind(config.sharing, plan.network, config.network, own) if own else None,
            own_norms=view.share and view.preparation.spacing != plan.preparation.spacing and taught,
            tiled=view.kind == "tiles",
        )
    return MultiTaskModel(shared, fitted_tasks, config.training.head_gradient, feature_count(plan.covariates), second)


def build_weighting(config: Config) -> Weighting:
    """The method that turns losses into gradients."""
    return weighting.kinds.get(config.weighting.kind)(config.weighting, tuple(config.tasks))
