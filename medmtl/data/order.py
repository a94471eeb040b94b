"""Which case a step's slot takes: a pure function of (seed, step, slot).

Every draw takes the next case of a permutation, and nothing has to be remembered: a resumed run, or any worker, asks
for a step and gets what an uninterrupted run got.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from medmtl.rng import generator

Queue = Sequence[Sequence[int]]
"""The groups of a queue, each the places of its cases in the list of training cases."""


class Order(Protocol):
    """Which case a step's slot takes.

    Attributes:
        span: draws of a pass, in which every case that is ever drawn is drawn at least once; but for an order that
            rearranges another's draws, which may draw a case later, by less than what it rearranges at a time.
    """

    span: int

    def case(self, step: int, slot: int) -> int:
        """The place in the list of training cases."""


class AsListed:
    """Every case in order, one per step.

    Args:
        cases: how many.

    Attributes:
        span: as many.
    """

    def __init__(self, cases: int) -> None:
        self.span = cases

    def case(self, step: int, slot: int) -> int:
        """The step itself; there is one slot."""
        return step


class CaseOrder:
    """Cases drawn from queues in turn, and within a queue from its groups in turn.

    Of Q queues, draw n takes from queue n mod Q; that queue's k-th draw takes from its group k mod G, and each group
    gives all of its cases once, in a new order, before any of them twice.

    Args:
        queues: at least one, each with at least one group, none of which is empty.
        batch: draws per step.
        seed: of the permutations.

    Attributes:
        span: draws after which every case of every queue was drawn at least once.
    """

    def __init__(self, queues: Sequence[Queue], batch: int, seed: int) -> None:
        self._queues = [[tuple(group) for group in queue] for queue in queues]
        self._batch = batch
        self._seed = seed
        self.span = max(len(queues) * len(queue) * max(map(len, queue)) for queue in self._queues)

    @classmethod
    def even(cls, places: Sequence[int], batch: int, seed: int) -> CaseOrder:
        """The cases at these places, whoever is labelled for what: each once before any twice."""
        return cls([[places]], batch, seed)

    @classmethod
    def labelled(
        cls,
        cases: Sequence[str],
        truths: Mapping[str, Mapping[str, Any]],
        groups: Mapping[str, Mapping[str, str]],
        batch: int,
        seed: int,
    ) -> CaseOrder:
        """Each task's labelled cases about equally often, whatever the share of cases that is labelled for it.

        Each task has a queue of its labelled cases, and each queue the same share of all draws. Tasks that are labelled
        for the same cases share one, so that a cohort without missing labels is drawn as :meth:`even` does. A case
        without any label is in no queue. A case that is drawn for one task brings its labels for the others.

        Args:
            cases: ids of the training cases.
            truths: task -> case id -> target.
            groups: task -> case id -> group, for tasks whose groups are to be drawn equally often.
            batch, seed: as of the class.
        """
        queues: dict[tuple[int, ...], dict[tuple[tuple[int, ...], ...], None]] = {}
        for task, targets in truths.items():
            places = tuple(place for place, case_id in enumerate(cases) if case_id in targets)
            if places:
                divided = queues.setdefault(places, {})
                if task in groups:
                    divided[_divided(places, [groups[task][cases[place]] for place in places])] = None
        # a queue in groups serves the tasks without groups that are labelled for the same cases
        return cls([queue for places, divided in queues.items() for queue in divided or [(places,)]], batch, seed)

    def case(self, step: int, slot: int) -> int:
        """The place in the list of training cases of what a slot of a step takes."""
        turn, queue = divmod(step * self._batch + slot, len(self._queues))
        turn, group = divmod(turn, len(self._queues[queue]))
        members = self._queues[queue][group]
        epoch, place = divmod(turn, len(members))
        only = len(self._queues) == len(self._queues[queue]) == 1
        stream = () if only else (queue, group)
        return members[int(generator(self._seed, "epoch", *stream, epoch).permutation(len(members))[place])]


def _divided(places: Sequence[int], groups: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The places of each group, in the order of the groups' names."""
    return tuple(
        tuple(place for place, own in zip(places, groups, strict=True) if own == name) for name in sorted(set(groups))
    )
