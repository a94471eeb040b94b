"""Which case a step's slot takes where several cohorts are trained on together: a pure function of (seed, step, slot).

Each cohort gets a share of the draws that goes with the square root of its size. By size a small hospital is hardly
heard; in equal shares its cases come so often that they are learned by heart. The square root lies between the two
(Mahajan et al. 2018, https://arxiv.org/abs/1805.00932, use it for rare labels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from medmtl.rng import generator


class CohortOrder:
    """Cases in rounds; each round holds every cohort's share, in a new order.

    A round has as many draws from the largest cohort as that has cases, and sqrt(n * largest) from one of n cases.
    After any number of rounds no case of a cohort was drawn more than once oftener than another one.

    Args:
        cohorts: of each training case; None for one that is never drawn.
        batch: draws per step.
        seed: of the orders.

    Attributes:
        span: draws after which every other case was drawn at least once: those of a round.
    """

    def __init__(self, cohorts: Sequence[str | None], batch: int, seed: int) -> None:
        names = sorted({name for name in cohorts if name is not None})
        self._members = [[place for place, own in enumerate(cohorts) if own == name] for name in names]
        largest = max(map(len, self._members))
        self._shares = [round(math.sqrt(len(members) * largest)) for members in self._members]
        self.span = sum(self._shares)
        self._batch = batch
        self._seed = seed

    def case(self, step: int, slot: int) -> int:
        """The place in the list of training cases of what a slot of a step takes."""
        turn, place = divmod(step * self._batch + slot, self.span)
        draw = int(generator(self._seed, "cohorts", turn).permutation(self.span)[place])
        cohort = 0
        while draw >= self._shares[cohort]:
            draw -= self._shares[cohort]
            cohort += 1
        members = self._members[cohort]
        epoch, position = divmod(turn * self._shares[cohort] + draw, len(members))
        return members[int(generator(self._seed, "epoch", cohort, epoch).permutation(len(members))[position])]
