"""Methods on gradients: one exact row of the Jacobian per task, and what every such method does with them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medmtl.weighting.base import Reduce, Trained, Weighting, WeightingOptions, one_process

MOST_TASKS = 16  # of the small solvers; each task is one more backward pass

Array = npt.NDArray[np.float64]
Row = Sequence[torch.Tensor | None]


class GradientOptions(WeightingOptions):
    """Options of methods that turn gradients into weights.

    Attributes:
        gradient: ``shared`` balances the gradients of all shared parameters; ``last_stage`` takes the weights from
            those of the encoder's deepest stage only, and then needs one backward pass instead of as many rows as tasks
            in memory.
    """

    gradient: Literal["shared", "last_stage"] = "shared"


class GradientMethod(Weighting):
    """Shared parameters get an aggregate of the tasks' gradients; every other one the plain sum of them.

    So a head learns from its own, unweighted gradient under every method. Frozen parameters are left out, and one that
    no present task reaches keeps ``grad`` None. A task whose row is zero everywhere (a loss that is constant, or a head
    that sends nothing into the trunk) takes no part: its weight is 1, which multiplies nothing. A row that is not
    finite makes the aggregate the plain sum, so that the step is refused with its name, and no state changes. There is
    never a scaler, so ``scale`` is not used.

    Raises:
        ValueError: for more than 16 tasks.
    """

    needs = "gradients"

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        if len(tasks) > MOST_TASKS:
            raise ValueError(
                f"weighting.kind {self.kind!r} balances at most {MOST_TASKS} tasks, and tasks has {len(tasks)}; "
                "choose a method on losses"
            )


class GramMethod(GradientMethod):
    """A method whose weights follow from the inner products of the rows, G_ts = g_t . g_s, in float64.

    Attributes:
        weighs_one: whether a row that is alone in its step has the method's weight too; otherwise it has 1, because
            there is nothing to balance.
    """

    Options: ClassVar[type[WeightingOptions]] = GradientOptions
    weighs_one: ClassVar[bool] = False

    @abstractmethod
    def weigh(self, gram_TT: Array, losses: Mapping[str, float]) -> Array:
        """Weights of the rows.

        Args:
            gram_TT: finite, with a positive diagonal of whatever size.
            losses: of the tasks that the rows belong to, in their order.
        """

    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Fill gradients; returns the weight of each present task."""
        shared, own = trainable(trained.shared), trainable(trained.own)
        losses = {name: losses[name] for name in self.tasks if name in losses}
        assert isinstance(self.options, GradientOptions)
        last = trainable(trained.last_stage) if self.options.gradient == "last_stage" else []
        if last:  # a sharing kind may name none, and it may be held still
            rows = [trained.reduce(row_of(loss, last, keep=True), last) for loss in losses.values()]
            weights = self._weights(gram_of(rows), losses)
            terms = [losses[name] * weight for name, weight in weights.items() if losses[name].requires_grad]
            row = row_of(torch.stack(terms).sum(), shared, keep=True) if terms else [None] * len(shared)
            fill(shared, [trained.reduce(row, shared)], [1.0])
            terms = [loss for loss in losses.values() if loss.requires_grad]
            fill(own, [row_of(torch.stack(terms).sum(), own, keep=False)] if terms else [], [1.0])
            return weights
        rows = all_rows(losses, shared, own, trained.reduce)
        weights = self._weights(gram_of(rows), losses)
        fill(shared, rows, list(weights.values()))
        return weights

    def _weights(self, gram_TT: Array, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
        weights = dict.fromkeys(losses, 1.0)
        kept = np.flatnonzero(np.diagonal(gram_TT) > 0)
        if not len(kept) or not np.isfinite(gram_TT).all():
            return weights
        names = [list(losses)[index] for index in kept]
        values = torch.stack([losses[name].detach() for name in names]).tolist()
        found = self.weigh(gram_TT[np.ix_(kept, kept)], dict(zip(names, values, strict=True)))
        if len(kept) > 1 or self.weighs_one:
            weights |= dict(zip(names, map(float, found), strict=True))
        return weights


def trainable(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Those that are not frozen."""
    return [parameter for parameter in parameters if parameter.requires_grad]


def all_rows(
    losses: Mapping[str, torch.Tensor],
    shared: Sequence[nn.Parameter],
    own: Sequence[nn.Parameter],
    reduce: Reduce = one_process,
) -> list[Row]:
    """Each task's gradient of the shared parameters, of all processes; ``.grad`` of the others gets the tasks' sum."""
    rows: list[Row] = []
    for index, loss in enumerate(losses.values()):
        row = row_of(loss, [*shared, *own], keep=index < len(losses) - 1)
        rows.append(reduce(row[: len(shared)], shared))
        fill(own, [row[len(shared) :]], [1.0])
    return rows


def row_of(loss: torch.Tensor, parameters: Sequence[nn.Parameter], *, keep: bool) -> Row:
    """d loss / d parameters; None for a parameter that the loss does not reach.

    By plain reverse mode, one task after the other: a vmapped pass breaks on norms under autocast, and one that starts
    at the encoder's maps counts the path from one map to the next twice.
    """
    if not parameters or not loss.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)


def gram_of(rows: Sequence[Row]) -> Array:
    """Inner products of the rows in float64, (T, T); the whole Jacobian is never one matrix."""
    total: torch.Tensor | None = None
    for column in zip(*rows, strict=True):
        reached = next((part for part in column if part is not None), None)
        if reached is None:
            continue
        # with rows of zeros, because a list of those that are there would be copied to a device, which waits for it
        filled = [torch.zeros_like(reached) if part is None else part for part in column]
        stacked_TN = torch.stack([part.flatten() for part in filled]).double()
        product = stacked_TN @ stacked_TN.T
        total = product if total is None else total + product
    if total is None:
        return np.zeros((len(rows), len(rows)))
    return (total + total.T).cpu().numpy() / 2


@torch.no_grad()
def fill(parameters: Sequence[nn.Parameter], rows: Sequence[Row], weights: Sequence[float]) -> None:
    """Add the weighted rows to ``.grad``, in memory of its own: autograd may hand out one tensor for two parameters."""
    for index, parameter in enumerate(parameters):
        for row, weight in zip(rows, weights, strict=bool(rows)):
            part = row[index]
            if part is None:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if weight != 0:
                parameter.grad.add_(part, alpha=weight)
