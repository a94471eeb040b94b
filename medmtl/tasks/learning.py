"""How a task learns: the loss of a batch, what it remembers from step to step, and what it learns at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Samples:
    """Whose samples a batch holds, and when they were drawn.

    Attributes:
        case_ids: B ids, in order; a case may stand in a batch more than once.
        step: the step that they were drawn for; of a validation, the number of steps done.
        epoch: steps of a pass over the training cases.
        remember: whether a task may remember them; not those of a validation, nor the same ones a second time after
            the step.
    """

    case_ids: tuple[str, ...]
    step: int
    epoch: int
    remember: bool


class LossFault(ValueError):
    """What a task's class returned is no loss as :class:`Learning` wants it."""


class Learning(ABC):
    """The part of a task that changes while it trains.

    Attributes:
        needs_finish: whether :meth:`finish` must be called before the task can answer; an option may decide it.
        per_sample: whether the loss of a batch is the mean over its labelled samples, so that several processes may
            hold parts of it; an option may decide it.
    """

    needs_finish: bool = False
    per_sample: bool = True

    @abstractmethod
    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Loss per sample, shape (B,), in fp32."""

    def reduce(self, loss_B: torch.Tensor, present_B: torch.Tensor) -> torch.Tensor:
        """Mean over labelled samples."""
        return labelled(loss_B, present_B).mean()

    def batch_loss(self, output: Any, target: torch.Tensor, present_B: torch.Tensor, samples: Samples) -> torch.Tensor:
        """Loss of the batch, a scalar in fp32: by default the mean over labelled samples.

        A loss that needs several patients at once overrides this, and nothing else of the training.

        Args:
            output: of the head.
            target: first axis B.
            present_B: which samples are labelled, at least one; on the CPU wherever the output lies.
            samples: whose they are.

        Raises:
            LossFault: if :meth:`loss` gives anything but one loss per sample.
        """
        loss_B: Any = self.loss(output, target)  # of a class of the user's own, whatever it says
        if not isinstance(loss_B, torch.Tensor) or loss_B.shape != present_B.shape:
            found = f"shape {tuple(loss_B.shape)}" if isinstance(loss_B, torch.Tensor) else type(loss_B).__name__
            raise LossFault(f"loss() must return one loss per sample, shape (B,) = ({len(present_B)},), found {found}")
        return self.reduce(loss_B, present_B)

    def extra_state(self) -> dict[str, Any]:
        """What it remembers, JSON-able, stored with every checkpoint; empty, always, for a kind without memory."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned.

        Raises:
            KeyError, TypeError, ValueError: if it is no state of this task.
        """
        if state:
            raise ValueError("a task without memory is given one")

    def finish(self, output_NK: torch.Tensor, target_N: torch.Tensor) -> None:
        """Learn from the outputs for all labelled training cases, once the weights are final; for case tasks.

        Args:
            output_NK: of the weights that predict, on cases that were not augmented, fp32 on the CPU.
            target_N: theirs, first axis N.
        """
        raise NotImplementedError

    @property
    def is_finished(self) -> bool:
        """Whether it can answer; not before :meth:`finish` where that is needed."""
        return True


def labelled(loss_B: torch.Tensor, present_B: torch.Tensor) -> torch.Tensor:
    """Those of labelled samples. By their places, found on the CPU: for a mask's, a device would be waited for."""
    places_N = present_B.nonzero()[:, 0]
    if loss_B.is_cuda:
        places_N = places_N.pin_memory()  # from other memory, a copy may wait for the device as well
    return loss_B[places_N.to(loss_B.device, non_blocking=True)]


def states_of(tasks: Mapping[str, Learning]) -> dict[str, dict[str, Any]]:
    """Name -> what the task remembers, of those that remember anything."""
    return {name: state for name, task in tasks.items() if (state := task.extra_state())}


def load_states(tasks: Mapping[str, Learning], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore what :func:`states_of` gave.

    Raises:
        KeyError, TypeError, ValueError: if a state is missing, is nobody's, or does not fit.
    """
    own = states_of(tasks)
    if states.keys() != own.keys():
        raise ValueError(f"it holds the memory of the tasks {sorted(states)}, not of {sorted(own)}")
    for name, state in states.items():
        tasks[name].load_extra_state(state)
