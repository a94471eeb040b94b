"""Cases of one shape in a step: a pure function of (seed, step, slot).

The samples of a step are padded to one shape, and an instance norm averages over the padding. So a case looks different
to the network beside a larger one, and other than alone, which is how it is predicted. And a step costs its voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from medmtl.data.crop import Triple
from medmtl.data.order import Order
from medmtl.rng import generator

MOST = 64  # steps of a round


class ShapeOrder:
    """The draws of another order, rearranged in rounds so that cases of one shape share a step.

    A round is made of the other order's draws, so that each case comes as often. What is left of a shape after its full
    steps shares one with what is left of the next larger ones. The steps of a round come in a random order. A round is
    no longer than a pass over the cases: the longer it is, the oftener a rare shape's step would hold one case twice.

    Args:
        order: which cases are drawn.
        shapes: of each training case, the shape that it needs of a sample.
        batch: draws per step.
        seed: of the steps' order.

    Attributes:
        span: as of ``order``, so that a pass has its length whatever the shapes. Where a pass is no whole number of
            rounds, a case of the round that it ends in may be drawn behind it, but before that round's end.
    """

    def __init__(self, order: Order, shapes: Sequence[Triple], batch: int, seed: int) -> None:
        self._order = order
        self._shapes = tuple(shapes)
        self._batch = batch
        self._seed = seed
        self._newest: tuple[int, list[list[int]]] = (-1, [])
        nothing_to_do = batch == 1 or len(set(self._shapes)) == 1
        self._steps = 1 if nothing_to_do else max(1, min(MOST, order.span // batch))
        self.span = order.span

    def case(self, step: int, slot: int) -> int:
        """The place in the list of training cases of what a slot of a step takes."""
        number, place = divmod(step, self._steps)
        if number != self._newest[0]:
            self._newest = number, self._round(number)
        return self._newest[1][place][slot]

    def _round(self, number: int) -> list[list[int]]:
        """The steps of a round, each the places of its cases."""
        first = number * self._steps
        alike: dict[Triple, list[int]] = {}
        for step in range(first, first + self._steps):
            for slot in range(self._batch):
                place = self._order.case(step, slot)
                alike.setdefault(self._shapes[place], []).append(place)
        steps: list[list[int]] = []
        left: list[int] = []
        for shape in sorted(alike, key=lambda shape: (math.prod(shape), shape)):
            places = alike[shape]
            rest = len(places) % self._batch
            steps += self._cut(places[rest:])
            left += places[:rest]
        steps += self._cut(left)
        return [steps[at] for at in generator(self._seed, "shapes", number).permutation(len(steps))]

    def _cut(self, places: list[int]) -> list[list[int]]:
        return [places[at : at + self._batch] for at in range(0, len(places), self._batch)]
