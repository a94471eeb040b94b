"""Soft sharing: a network per task, whose encoders are pulled towards each other.

The classic penalty of multi-task learning (Duong et al. 2015, https://aclanthology.org/P15-2139; Ruder 2017,
https://arxiv.org/abs/1706.05098, section 3.2)::

    L = sum_t L_t + mu * D,    D = mean over corresponding weights of (theta_1 - theta_2)^2 for two tasks,

and 1 / (T - 1) times the sum over pairs for T tasks. It is applied as weight decay is in AdamW (Loshchilov and Hutter
2019, https://arxiv.org/abs/1711.05101): after the optimiser's step and apart from its moments, which would divide it
by the noise of the losses' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from medmtl.networks.cost import Towers
from medmtl.networks.encoder import EncoderOptions
from medmtl.networks.features import Features
from medmtl.networks.norm import InstanceNorm
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import Sharing, SharingOptions, encoder_copies, parameters_of
from medmtl.sharing.decoders import decoder_copies


class SoftOptions(SharingOptions):
    """Options of soft sharing.

    Attributes:
        mu: strength of the pull; 0 trains separate networks.
        distance: ``l2``, the mean squared difference of corresponding weights; ``l1``, the mean absolute one, which
            makes most weights equal and leaves some apart; ``cosine``, of each pair of tensors one minus the cosine of
            their angle, which leaves their lengths alone.
        strengths: factors on ``mu`` for each stage of the encoders, finest first; the last one stands for all deeper
            stages. None is 1 for all.
    """

    mu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    distance: Literal["l2", "l1", "cosine"] = "l2"
    strengths: Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], Field(min_length=1)] | None = (
        None
    )


class Soft(Sharing):
    """An encoder per task that those of the others attract, and a decoder per voxel task.

    That is so whatever ``network.decoder`` says. All start as copies of one encoder and one decoder. Nothing is shared,
    so that each task's network is a clipping group of its own, and with ``mu: 0`` each is trained, on the
    same batches and draws, to the bytes of a model with this task alone. Under ``l2`` a step's pull is

        theta_t <- mean + (theta_t - mean) / (1 + 2 rate mu T / (T - 1)),    mean over all T towers,

    the implicit step along the gradient of ``mu D``, which is stable for every ``mu``, times the number of weights:
    ``D`` is divided by it, and so that ``mu`` means the same for every width, the step is multiplied by it. One rate,
    the trunk's, is for all of them, so that they meet in the middle. A tower whose task is absent from a step counts in
    the mean and is not moved. Decoders are not pulled.

    ``l1`` is the implicit step of its ``D`` in the same way. With ``cosine``, ``D`` is the sum over tensors, and a step
    is the gradient of ``mu D`` for each tensor's direction, times its length: ||theta||^2 times that for the tensor.

    Cost against one encoder: parameters, memory and time of an encoder per task and of a decoder per voxel task.

    Args:
        options: strength and form of the pull.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "soft"
    Options = SoftOptions
    shares: ClassVar[bool] = False

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        assert isinstance(options, SoftOptions)
        self._options = options
        self.encoders = encoder_copies(shape, network, voxel)
        self.decoders = decoder_copies(shape, voxel)

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """An encoder per task, and a decoder per voxel task."""
        assert isinstance(options, SoftOptions)
        if len(options.strengths or ()) > len(shape.channels):
            raise ValueError(
                f"strengths {list(options.strengths or ())} are more than the planned network's {len(shape.channels)} "
                "stages; leave the last ones away"
            )
        return Towers(len(voxel), sum(voxel.values()), beside_maps=0.5 * len(voxel))

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through the network of each named task."""
        return self.decoders.decode({name: self.encoders[f"{name}_encoder"](image_BCDHW) for name in tasks})

    def shared_parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """The task's encoder and decoder."""
        return [*parameters_of(self.encoders, f"{task}_encoder"), *self.decoders.own(task)]

    def encoder_norms(self) -> list[InstanceNorm]:
        """None: the norms of a task of another view are its own already."""
        return []

    @torch.no_grad()
    def after_step(self, rate: float) -> None:
        """Pull the encoders of the tasks that had a gradient in this step towards those of the others.

        Args:
            rate: the trunk's learning rate of that step.
        """
        if self._options.mu == 0 or len(self.encoders) == 1:
            return
        stages = [list(encoder.stages) for encoder in self.encoders.values()]  # type: ignore[arg-type]
        strengths = self._options.strengths or (1.0,)
        pull = DISTANCES[self._options.distance]
        for index, alike in enumerate(zip(*stages, strict=True)):
            strength = rate * self._options.mu * strengths[min(index, len(strengths) - 1)]
            if strength == 0:
                continue
            for held in zip(*(stage.parameters() for stage in alike), strict=True):
                pull(held, [parameter for parameter in held if parameter.grad is not None], strength)


def _l2(held: Sequence[torch.Tensor], moved: Sequence[torch.Tensor], pull: float) -> None:
    mean, force = torch.stack(list(held)).mean(0), 2 * pull * len(held) / (len(held) - 1)
    for tensor in moved:
        tensor.lerp_(mean, force / (1 + force))


def _l1(held: Sequence[torch.Tensor], moved: Sequence[torch.Tensor], pull: float) -> None:
    # Of T towers each goes pull / (T - 1) towards each other one: in order, the lowest by pull up, the highest by pull
    # down. That is the exact implicit step but for those that would cross, which meet in their mean: the nearest values
    # that keep the order, by the formula of isotonic regression. The mean of all stays, where all have a gradient.
    value_TN, order_TN = torch.stack(list(held)).sort(dim=0, stable=True)
    count = len(held)
    step_T = torch.linspace(pull, -pull, count, dtype=value_TN.dtype, device=value_TN.device)
    value_TN += step_T.view(-1, *[1] * held[0].dim())

    def meets(index: int) -> torch.Tensor:
        blocks = [
            torch.stack([value_TN[low : high + 1].mean(0) for high in range(index, count)]).amin(0)
            for low in range(index + 1)
        ]
        return torch.stack(blocks).amax(0)

    found = torch.empty_like(value_TN).scatter_(0, order_TN, torch.stack([meets(index) for index in range(count)]))
    places = {id(tensor): place for place, tensor in enumerate(held)}
    for tensor in moved:
        tensor.copy_(found[places[id(tensor)]])


def _cosine(held: Sequence[torch.Tensor], moved: Sequence[torch.Tensor], pull: float) -> None:
    # one minus the cosine is half the squared distance of the directions
    directions = {id(tensor): nn.functional.normalize(tensor.flatten(), dim=0) for tensor in held}
    mean = torch.stack(list(directions.values())).mean(0)
    force = pull * len(held) / (len(held) - 1)
    for tensor in moved:
        turned = torch.lerp(directions[id(tensor)], mean, force / (1 + force))
        length = turned.norm()
        scaled = turned * (tensor.norm() / length)
        # opposite tensors have no direction between them; asked on the device, which need not be waited for
        tensor.copy_(torch.where(length > 0, scaled, tensor.flatten()).view_as(tensor))


DISTANCES: Mapping[str, Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], float], None]] = {
    "l2": _l2,
    "l1": _l1,
    "cosine": _cosine,
}
