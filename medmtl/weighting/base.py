"""What every weighting kind provides: per-task losses in, gradients filled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

T = TypeVar("T")


class WeightingOptions(BaseModel):
    """Options that every weighting kind has.

    Attributes:
        kind: name of the kind.
        loss_scale: ``prior`` divides each task's loss by that of the best constant predictor; ``none`` does not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    loss_scale: Literal["prior", "none"] = "prior"


Reduce = Callable[[Sequence[torch.Tensor | None], Sequence[nn.Parameter]], Sequence[torch.Tensor | None]]
"""(row, the parameters it belongs to) -> the row of all processes."""


def one_process(row: Sequence[torch.Tensor | None], parameters: Sequence[nn.Parameter]) -> list[torch.Tensor | None]:
    """The row of a process that holds the whole batch."""
    return list(row)


@dataclass(frozen=True)
class Trained:
    """Parameters of the model by who reaches them; none twice.

    Attributes:
        shared: those that more than one task can reach.
        last_stage: of these, the ones of the deepest stage of an encoder.
        own: the others: heads, and what else a single task reaches.
        reduce: adds a row, one task's gradients of some parameters, over all processes that share the batch. A method
            on gradients calls it for every row of shared parameters before it looks at it, on every process in the same
            order. What it then fills for the shared parameters is not added again, and what
            it fills for the others is.
    """

    shared: Sequence[nn.Parameter]
    last_stage: Sequence[nn.Parameter] = ()
    own: Sequence[nn.Parameter] = ()
    reduce: Reduce = one_process


class Weighting(nn.Module, ABC):
    """Fills gradients from per-task losses. Any subset of tasks may be present in a step.

    Args:
        options: the kind's options.
        tasks: names of all tasks; state is kept under these names.
    """

    kind: ClassVar[str]
    Options: ClassVar[type[WeightingOptions]]
    needs: ClassVar[Literal["losses", "gradients", "second forward"]] = "losses"
    positive_losses: ClassVar[bool] = False
    weighs_alone: ClassVar[bool] = True  # False where a task that is alone in a step always has weight 1

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__()
        self.options = options
        self.tasks = tuple(tasks)

    @abstractmethod
    def backward(
        self,
        losses: Mapping[str, torch.Tensor],
        *,
        trained: Trained,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> Mapping[str, float] | None:
        """Fill ``.grad`` and return the weights used, or None where a method has none.

        Args:
            losses: scalar loss of each task present in this step; absent tasks have no entry.
            trained: the parameters whose ``.grad``, None before, is filled where a present task reaches them; a method
                on gradients balances the shared ones. Some may be frozen.
            scale: the gradient scaler's factor; the identity without one, and for every method on gradients.
        """

    def after_step(self, losses: Mapping[str, float], again: Mapping[str, float], epoch: int) -> None:
        """Hook after the optimiser's step.

        Args:
            losses: of the present tasks, before the step.
            again: of the same samples after it, for a method that ``needs`` a second forward pass; otherwise empty.
            epoch: passes over the training cases that are complete, from 0.
        """

    def extra_state(self) -> dict[str, Any]:
        """State outside tensors, JSON-able and keyed by task name; stored with every checkpoint."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned."""


def same_tasks(state: Mapping[str, T], tasks: Collection[str]) -> Mapping[str, T]:
    """Stored state by task name, in whatever order.

    Raises:
        ValueError: if it is not that of these tasks.
    """
    if set(state) != set(tasks):
        raise ValueError(f"the weighting's state is of the tasks {sorted(state)}, expected {sorted(tasks)}")
    return state
