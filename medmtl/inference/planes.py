"""Voxel answers on their way through prediction: some planes at a time, so that a case's are never all in memory.

Each of these generators yields planes to the one below, and behind the last returns what the other tasks say::

    forward._slide             planes that no later window sees
    forward._main_view         those, or all at once where one window holds the case
    PredictedLesion.watch      the same, looked at on their way: where a second view is around the lesion
    forward.stream             the same; what a second view says is added to what is returned
    averaged                   the means of several models' planes; returns what each of the models said
    predict.Predictor.answer   no generator: a NativeAnswer per task takes the planes
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

R = TypeVar("R")

Found = dict[str, torch.Tensor]
"""Task -> activation, of tasks that are no voxel tasks."""


@dataclass(frozen=True)
class Planes:
    """What voxel tasks say of some planes of a case, final.

    Attributes:
        values: voxel task -> (K, d, H, W), fp32 on the CPU; valid until the next planes are asked for, and the reader's
            to change.
    """

    values: Mapping[str, torch.Tensor]

    @property
    def count(self) -> int:
        """How many planes."""
        return next(iter(self.values.values())).shape[1]

    def part(self, start: int, stop: int) -> Planes:
        """Some of them."""
        return Planes({name: value[:, start:stop] for name, value in self.values.items()})


Stream = Generator[Planes, None, Found]
"""A case's planes from its first to its last, along the first axis; then what the other tasks say."""


def averaged(streams: Sequence[Stream]) -> Generator[Planes, None, list[Found]]:
    """The mean of several models' planes, as many at a time as all of them have; then what each says otherwise.

    Args:
        streams: of one case. They need not come in parts of one size.
    """
    held: list[Planes | None] = [None] * len(streams)
    found: list[Found] = [{} for _ in streams]
    while True:
        for index, stream in enumerate(streams):
            if held[index] is None:
                try:
                    held[index] = next(stream)
                except StopIteration as end:
                    found[index] = end.value
        ready = [planes for planes in held if planes is not None]
        if not ready:
            return found
        assert len(ready) == len(held), "all models see the same planes"
        count = min(planes.count for planes in ready)
        yield _mean([planes.part(0, count) for planes in ready])
        held = [planes.part(count, planes.count) if planes.count > count else None for planes in ready]


def _mean(parts: Sequence[Planes]) -> Planes:
    if len(parts) == 1:
        return parts[0]
    sums = {name: value.clone() for name, value in parts[0].values.items()}
    for part in parts[1:]:
        for name, value in part.values.items():
            sums[name] += value
    return Planes({name: value.div_(len(parts)) for name, value in sums.items()})


class Drained(Generic[R]):
    """Planes for a ``for`` loop, and behind it what came after them.

    Args:
        parts: to be read once.

    Attributes:
        found: what ``parts`` returned; there once the loop has ended by itself.
    """

    found: R

    def __init__(self, parts: Generator[Planes, None, R]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Planes]:
        self.found = yield from self._parts
