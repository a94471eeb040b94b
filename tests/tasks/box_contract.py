"""What every kind of boxes must do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from medmtl.tasks.base import ScoredCase
from medmtl.tasks.box_task import BoxTask, FoundBox
from tests.tasks.contract import SHAPE, TaskContract


class BoxTaskContract(TaskContract):
    """For kinds whose answer is boxes. ``truths`` are label arrays of ``SHAPE``, of which the first has a lesion.

    Attributes:
        primary: name of the first metric.
        spacing: working voxel size.
    """

    primary: ClassVar[str]
    spacing: ClassVar[Sequence[float]] = (1.0, 1.0, 2.0)

    def fitted(self, **changes: Any) -> BoxTask:
        """The task as training uses it, from the sizes of the lesions."""
        task = self.unfitted(**changes)
        assert isinstance(task, BoxTask)
        boxes = [task.reference(truth) for truth in self.truths]
        sizes = [(found[:, 3:] - found[:, :3]) * self.spacing for found in boxes]
        learned = {**task.fit(sizes), **task.resolve({"target": task}), **task.at_spacing(self.spacing)}
        return type(task)("target", task.options, json.loads(json.dumps(learned, allow_nan=False)))

    def test_targets_are_boxes_of_one_number_and_type_with_and_without_a_lesion(self) -> None:
        task = self.fitted()
        first, none = task.encode(self.truths[0]), task.encode(np.zeros(SHAPE, np.uint8))
        assert (first.shape, first.dtype) == (none.shape, none.dtype)
        assert first.shape[1:] == (6,)
        count = len(task.reference(self.truths[0]))
        assert count
        assert int((first[:, 3:] > first[:, :3]).all(dim=1).sum()) == count
        assert none.count_nonzero() == 0

    def test_activations_are_boxes_with_scores(self) -> None:
        task, head, maps, _ = self.run(2)
        found = task.activate(head.eval()(maps)).detach()
        assert found.dtype == torch.float32
        assert found.shape[0] == 2
        assert found.shape[2] == 7
        assert torch.isfinite(found).all()
        assert ((found[..., 6] >= 0) & (found[..., 6] <= 1)).all()

    def test_an_answer_that_is_not_finite_stays_so(self) -> None:
        task, head, maps, _ = self.run(1)
        prediction, anchors = head.eval()(maps)
        assert not torch.isfinite(task.activate((prediction * torch.nan, anchors))).any()
        assert not torch.isfinite(task.loss((prediction * torch.nan, anchors), task.encode(self.truths[0])[None])).any()

    def test_a_perfect_answer_has_the_best_score_and_none_at_all_the_worst(self) -> None:
        task = self.fitted()
        for share, expected in ((1.0, 1.0), (0.0, 0.0)):
            cases = []
            for index, truth in enumerate(self.truths):
                reference = tuple(tuple(box) for box in task.reference(truth).tolist())
                found = [FoundBox(box, box, 0.9) for box in reference] if share else []
                result = task.result(found)
                scores = task.box_scores(result, reference)
                cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, reference, result, scores))
            self.check_scored(cases, self.primary)
            assert task.metrics(cases)[self.primary].value == pytest.approx(expected)

    def test_cells_carry_the_tasks_name(self) -> None:
        for boxes in ([], [FoundBox((0.0,) * 6, (0.0,) * 6, 0.5)]):
            cells = self.fitted().result(boxes).cells("target")
            assert cells
            assert all(name.startswith("target_") for name in cells)
            assert tuple(cells) == self.unfitted().answer_columns
