"""One step on several processes: each holds some samples of the joint batch, and all take the same step.

No gradient is averaged behind the weighting's back. A task's loss is the mean over its labelled samples of the joint
batch: each process contributes the part of its own samples, the gradients of these parts are added, and the value that
a weighting is shown is the joint one. So a weighting computes the same weights everywhere, its state stays equal
everywhere, and its own parameters' gradients are joint already.

Where the parts of a gradient are added, by what the method looks at (``Weighting.needs``)::

    needs                     shared parameters                          the others, each reached by one task
    losses, second forward    behind the backward pass: add_gradients    behind the backward pass: add_gradients
    gradients                 each row before it is looked at:           behind the backward pass: add_gradients
                              Trained.reduce, of ``hooked``

What ``training.telemetry`` looks at is added by ``summed``, and goes into no ``.grad``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from medmtl.data.batch import Batch, ViewBatch
from medmtl.data.loader import StepDataset
from medmtl.distributed import Ranks
from medmtl.errors import InputError, NumericError
from medmtl.model import MultiTaskModel
from medmtl.networks.joint import Dropout, JointBatch
from medmtl.networks.pooling.head import RunningStandardisation
from medmtl.run_folder import RunFolder
from medmtl.tasks.learning import Learning
from medmtl.weighting.base import Trained, Weighting

Losses = dict[str, torch.Tensor]


class OthersRun(RunFolder):
    """A run as a process sees it that is not the first: it reads, and leaves writing to the first one."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Nothing: the first process says it."""

    def sync_log(self) -> None:
        """Nothing, as :meth:`log`."""

    def truncate_log(self, step: int) -> None:
        """Nothing, as :meth:`log`."""


def refuse_ranks(ranks: Ranks, tasks: Mapping[str, Learning], alternate: str) -> None:
    """Refuse what several processes cannot train.

    Args:
        ranks: the processes.
        tasks: by name.
        alternate: ``training.alternate``, which looks at the labels of a whole batch.

    Raises:
        InputError: naming the task or the key.
    """
    if ranks.size > 1 and alternate != "none":
        raise InputError(
            f"training.alternate {alternate!r} chooses a task by the labels of a batch, which one process must hold, "
            f"and {ranks.size} were started; start one, or set it to none"
        )
    joint = [name for name, task in tasks.items() if not task.per_sample]
    if ranks.size > 1 and joint:
        raise InputError(
            f"tasks.{joint[0]}: its loss compares the patients of a batch, which one process must hold, and "
            f"{ranks.size} were started; start one, or choose a loss per patient (survival: loss: hazards)"
        )


def refuse_too_many(processes: int, *batches: int) -> None:
    """Refuse more processes than there are samples in the largest view's joint batch.

    Raises:
        InputError: naming the number of processes that is possible.
    """
    if processes > max(batches):
        raise InputError(
            f"{processes} processes cannot share a batch of {max(batches)}: start at most {max(batches)}, or set "
            f"plan.batch: {processes} (the samples of all processes together)"
        )


class JointStep:
    """What the processes exchange in a step.

    Args:
        ranks: more than one.
        model: trained; its layers that look at several samples are told of the joint batch.
        views: the training's, in order.
        device: of the model.
    """

    def __init__(self, ranks: Ranks, model: MultiTaskModel, views: Sequence[StepDataset], device: torch.device) -> None:
        self.ranks = ranks
        self._model = model
        self._views = tuple(views)
        self._device = device
        self._batch = JointBatch(ranks.sum)
        self._rows_added = False
        for layer in model.modules():
            if isinstance(layer, Dropout | RunningStandardisation):
                layer.joint = self._batch

    def losses(self, batch: Batch, compute: Callable[[ViewBatch, Sequence[str]], Losses]) -> Losses:
        """Joint losses of the tasks with a labelled sample anywhere, whose gradients are those of the samples here.

        Args:
            batch: the samples here.
            compute: the mean losses of the tasks labelled in a view's samples here, after a forward pass for the tasks
                that are labelled in any process's.
        """
        counts = self._counts(batch)
        found: Losses = {}
        for view in self._views:
            names = tuple(name for name in view.encoders if counts[name][1])
            self._batch.samples, self._batch.rows = view.batch, view.slots
            if view.slots:
                found |= compute(batch.views[view.view.kind], names)
            else:
                self._stand_by(names)
        return self._joint(found, counts)

    def hooked(self, trained: Trained) -> Trained:
        """The parameters, for a method that looks at the gradients of each task."""
        self._rows_added = False

        def reduce(row: Sequence[torch.Tensor | None], parameters: Sequence[nn.Parameter]) -> list[torch.Tensor | None]:
            self._rows_added = True
            return self.summed(row, parameters)

        return replace(trained, reduce=reduce)

    def add_gradients(self, weighting: Weighting, trained: Trained, tasks: int) -> None:
        """Make ``.grad`` of every parameter that any process reached the sum over all; None where nobody did.

        Args:
            weighting: filled the gradients.
            trained: the parameters.
            tasks: present in the step.

        Raises:
            InputError: if the method balances gradients and did not add them, so that each process would go its way.
        """
        if weighting.needs == "gradients" and tasks > 1 and not self._rows_added:
            raise InputError(f"weighting.kind {weighting.kind} cannot be trained on several processes; start one")
        parameters = [*trained.own] if self._rows_added else [*trained.shared, *trained.own]
        # as the parameter lies in memory: the norm of a gradient depends on the order of its numbers in the last bit
        for parameter, total in zip(parameters, self.summed([p.grad for p in parameters], parameters), strict=True):
            parameter.grad = total

    def summed(self, values: Sequence[torch.Tensor | None], like: Sequence[nn.Parameter]) -> list[torch.Tensor | None]:
        """The sums of gradients over all processes, laid out as the parameters; None where no process has a value."""
        if not values:
            return []
        reached = [float(value is not None) for value in values]
        flat = [torch.zeros_like(x) if v is None else v for v, x in zip(values, like, strict=True)]
        sizes = [part.numel() for part in flat]
        total = self.ranks.sum(torch.cat([*(p.reshape(-1) for p in flat), flat[0].new_tensor(reached)]))
        *parts, counts = torch.split(total, [*sizes, len(reached)])
        return [
            torch.empty_like(x).copy_(part.view_as(x)) if count else None
            for x, part, count in zip(like, parts, counts.tolist(), strict=True)
        ]

    def refuse_apart(self, step: int) -> None:
        """Compare the weights of all processes, which every step leaves equal to the last bit.

        Raises:
            NumericError: if they are not; nothing may be kept then.
        """
        digest = hashlib.sha256()
        for tensor in self._model.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        found = self.ranks.gather(digest.hexdigest())
        other = [rank for rank, own in enumerate(found) if own != found[0]]
        if other:
            raise NumericError(
                f"step {step}: the weights of process {', '.join(map(str, other))} are not those of process 0; nothing "
                "since the last commit was kept; go on with --resume, on processors of one kind, and have the memory "
                "tested if it comes again"
            )

    def _counts(self, batch: Batch) -> dict[str, tuple[int, int]]:
        """Task -> labelled samples here, and anywhere."""
        here = dict.fromkeys(self._model.tasks, 0)
        for view in batch.views.values():
            here |= {name: int(present_B.sum()) for name, present_B in view.present.items()}
        everywhere = self.ranks.sum(torch.tensor(list(here.values()))).tolist()
        return {name: (own, total) for (name, own), total in zip(here.items(), everywhere, strict=True)}

    def _stand_by(self, names: Sequence[str]) -> None:
        """Without a sample of a view: take part in what its heads exchange and draw."""
        for name in names:
            layers = [
                layer
                for layer in self._model.heads[name].modules()
                if isinstance(layer, Dropout | RunningStandardisation)
            ]
            widths = [layer.mean.numel() for layer in layers if isinstance(layer, RunningStandardisation)]
            for layer in layers:
                # the first one's features are what is dropped; the extents of a guided head, behind it, are not
                width = layer.mean.numel() if isinstance(layer, RunningStandardisation) else next(iter(widths), 0)
                layer(torch.empty(0, width, device=self._device))

    def _joint(self, found: Losses, counts: Mapping[str, tuple[int, int]]) -> Losses:
        nothing = torch.zeros((), device=self._device, requires_grad=True)
        # with a graph everywhere, so that no method goes another way in a process without labels
        parts = {
            name: found[name] * (own / total) + nothing if own else nothing
            for name, (own, total) in counts.items()
            if total
        }
        if not parts:
            return {}
        values = self.ranks.sum(torch.stack([part.detach() for part in parts.values()]))
        # the value of all samples with the graph of those here; exactly 0 is added, so that all have the same bits
        return {name: (part - part.detach()) + value for (name, part), value in zip(parts.items(), values, strict=True)}
