"""AdamW, or SGD, in groups of rates, with warm-up and polynomial decay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from medmtl.model import MultiTaskModel
from medmtl.sections import HeadSection, TrainingSection
from medmtl.weighting.base import Weighting

WARM_UP = 50
POWER = 0.9
MOMENTUM = 0.99  # of SGD, with Nesterov's update, as in nnU-Net


@dataclass(frozen=True)
class Schedule:
    """Factor on every rate: linear warm-up, then (1 - progress) ** 0.9, as in nnU-Net's poly schedule.

    Attributes:
        steps: length of the training; None while it is still being measured, which ends within the warm-up.
        fixed_warm_up: whether the warm-up is 50 steps whatever the length (``minutes`` runs, whose length is unknown at
            first) or a tenth of the steps, at most 50.
    """

    steps: int | None
    fixed_warm_up: bool

    def factor(self, step: int, warm_up: int | None = None) -> float:
        """The factor for the 0-based ``step``; ``warm_up`` in steps is by default the one described above."""
        if warm_up is None:
            warm_up = WARM_UP if self.fixed_warm_up or self.steps is None else min(WARM_UP, max(1, self.steps // 10))
        if step < warm_up or self.steps is None:
            return min(1.0, (step + 1) / warm_up)
        # a resume may know from its first step on what a start in minutes learns later: until then no rate falls
        begin = max(warm_up, WARM_UP) if self.fixed_warm_up else warm_up
        return float(min(1.0, max(0.0, 1 - (step - begin) / max(1, self.steps - begin))) ** POWER)


def make_optimiser(
    model: MultiTaskModel, weighting: Weighting, case_tasks: frozenset[str], training: TrainingSection
) -> torch.optim.Optimizer:
    """The optimiser with one group per (rate, decay) pair and per clipping group.

    The trunk and the voxel heads share ``lr``; what case tasks alone train of it has ``head_lr``. Each case head
    has ``head_lr``, or what ``heads`` says, and a clipping group of its own, because a small head next to a large trunk
    is either starved or scaled away by one common norm.
    Where tasks share nothing, the encoder and decoder of each are a clipping group of their own, with the rate that a
    model with this task alone would have, so that one task's gradient cannot scale another's.
    Biases, norm parameters and a weighting's own parameters are not decayed.

    Args:
        model: the model; every parameter lands in exactly one group.
        weighting: its parameters join without decay.
        case_tasks: names of the tasks whose heads take ``head_lr``.
        training: optimiser, rates and decay.
    """
    groups: list[dict[str, object]] = []

    def add(name: str, parameters: list[nn.Parameter], rate: float, decay: float, warm_up: int | None = None) -> None:
        for suffix, chosen, weight_decay in (
            ("weights", [p for p in parameters if p.ndim > 1], decay),
            ("other", [p for p in parameters if p.ndim <= 1], 0.0),
        ):
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "lr": rate,
                        "base_lr": rate,
                        "weight_decay": weight_decay,
                        "clip_group": name,
                        "name": f"{name}/{suffix}",
                        **({} if warm_up is None else {"warm_up": warm_up, "own_factor": 0.0}),
                    }
                )

    for name, parameters, rate in _trunk_groups(model, case_tasks, training):
        add(name, parameters, rate, training.weight_decay)
    for task in model.tasks:
        if task in case_tasks:
            own = training.heads.get(task, HeadSection())
            rate = training.head_lr if own.lr is None else own.lr
            add(task, list(model.head_parameters(task)), rate, training.weight_decay, own.warm_up)
    add("weighting", list(weighting.parameters()), training.head_lr, 0.0)
    if training.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, foreach=True)
    return torch.optim.AdamW(groups, fused=True)


def _trunk_groups(
    model: MultiTaskModel, case_tasks: frozenset[str], training: TrainingSection
) -> Iterator[tuple[str, list[nn.Parameter], float]]:
    """Name, parameters and rate of what is no case head; the first rate is that of the voxel tasks' trunk."""
    case = [task for task in model.tasks if task in case_tasks]  # in order, in which a norm is summed
    voxel = [task for task in model.tasks if task not in case_tasks]
    towers = model.towers()
    held = {parameter for tower in towers.values() for parameter in tower}
    cases = [p for p in model.reached_only_by(case) if p not in held] if voxel else []
    held.update(cases)
    trunk, own_trunk = (
        [parameter for parameter in parameters if parameter not in held]
        for parameters in (model.trunk_parameters(), model.second_trunk_parameters())
    )
    for task in voxel:
        if task not in towers:
            trunk += model.head_parameters(task)
    for task in sorted(towers, key=lambda task: task in case_tasks):
        head, rate = ([], training.head_lr) if task in case_tasks else (model.head_parameters(task), training.lr)
        yield f"{task}'s tower", [*towers[task], *head], rate
    # the gradient of a few case labels is mostly noise, and a mask's rate walks at random on it
    yield "trunk", trunk, training.lr if voxel else training.head_lr
    yield "trunk of case tasks", cases, training.head_lr
    yield "second view's trunk", own_trunk, training.head_lr


def scheduled_factor(optimiser: torch.optim.Optimizer, schedule: Schedule, step: int) -> float:
    """The factor of the 0-based ``step`` for :func:`set_rates`; groups with a warm-up of their own are given theirs."""
    for group in optimiser.param_groups:
        if "warm_up" in group:
            group["own_factor"] = schedule.factor(step, group["warm_up"])
    return schedule.factor(step)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Every group's rate becomes its base rate times ``factor``, or times its own factor where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * group.get("own_factor", factor)


def clip_groups(optimiser: torch.optim.Optimizer, limit: float) -> dict[str, torch.Tensor]:
    """Clip the gradient norm of each clipping group to ``limit``; returns the norms before clipping."""
    parameters: dict[str, list[nn.Parameter]] = {}
    for group in optimiser.param_groups:
        parameters.setdefault(group["clip_group"], []).extend(p for p in group["params"] if p.grad is not None)
    return {
        name: nn.utils.clip_grad_norm_(chosen, limit, foreach=True) for name, chosen in parameters.items() if chosen
    }
