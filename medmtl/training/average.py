"""Averaged weights: an exponential moving average with a warm-up.

After step n the average is d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)), so that early, bad
weights are forgotten quickly (the warm-up used by TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from medmtl.model import MultiTaskModel, refuse_other_tensors


class WeightAverage:
    """The average of a model's parameters and buffers.

    Args:
        model: the model being trained.
        decay: the decay reached after the warm-up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._source = model
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, steps_done: int) -> None:
        """Take the weights after step number ``steps_done`` (1-based) into the average."""
        decay = min(self.decay, (1 + steps_done) / (10 + steps_done))
        current = self._source.state_dict()
        names = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[n] for n in names], [current[n] for n in names], 1 - decay)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the average bit for bit.

        Raises:
            ArtefactError: if a tensor is missing, extra, or of another shape or type; all are listed.
        """
        refuse_other_tensors("averaged weights", self.tensors, tensors)
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


@contextmanager
def looking(model: MultiTaskModel, average: WeightAverage | None) -> Iterator[None]:
    """The model as it predicts, for a look between two steps; as before when the context ends, be it by an error.

    Args:
        model: in evaluation mode inside.
        average: whose weights it has inside; None keeps its own.
    """
    was_training = model.training
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()} if average is not None else {}
    model.eval()
    try:
        if average is not None:
            model.load_weights(average.tensors)
        yield
    finally:
        model.train(was_training)
        if average is not None:
            model.load_weights(weights)
