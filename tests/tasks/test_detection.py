from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

from medmtl.data.boxes import painted
from medmtl.tasks.base import CellError
from medmtl.tasks.box_task import FoundBox
from medmtl.tasks.detection import MOST_LESIONS, Detection, DetectionOptions
from tests.tasks.box_contract import BoxTaskContract
from tests.tasks.contract import SHAPE, SPEC, features

OPTIONS = {"kind": "detection", "column": "lesion"}


def lesions(*places: tuple[slice, slice, slice]) -> npt.NDArray[np.uint8]:
    array = np.zeros(SHAPE, np.uint8)
    for value, place in enumerate(places, start=1):
        array[place] = value
    return array


TRUTHS = (
    lesions(np.s_[1:4, 2:6, 0:2], np.s_[5:8, 5:8, 2:4]),
    lesions(),
    lesions(np.s_[2:7, 1:6, 1:4]),
    lesions(np.s_[0:2, 0:2, 0:1]),
)


TABLES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((1, 2, 0, 4, 6, 2), (3, 1, 1, 8, 8, 4)),  # they overlap
    (),
    ((2, 1, 1, 7, 6, 4),),
    ((0, 0, 0, 2, 2, 1),),
)


class TestDetection(BoxTaskContract):
    options = OPTIONS
    primary = "froc"
    truths: ClassVar[Sequence[Any]] = TRUTHS
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"anchors": []}, "anchors"),
        ({"anchors": [[1, 2]]}, "anchors"),
        ({"anchors": [[1, 2, 0]]}, "anchors"),
        ({"min_score": 0}, "min_score"),
        ({"labels": {"a": 1}}, "labels"),
        ({"boxes": "mni"}, "boxes"),
        ({"boxes": "ras", "components": True}, "remove components, or boxes"),
    )


class TestDetectionOfComponents(TestDetection):
    options = {**OPTIONS, "components": True}


class TestDetectionOfTables(TestDetection):
    options = {**OPTIONS, "boxes": "lps"}
    truths: ClassVar[Sequence[Any]] = tuple(
        painted(np.array(boxes, np.float64).reshape(-1, 6), SHAPE) for boxes in TABLES
    )

    def test_every_box_of_a_table_is_a_lesion_of_its_own(self) -> None:
        task = self.fitted()
        assert task.frame == "lps"
        for boxes, truth in zip(TABLES, self.truths, strict=True):
            assert task.reference(truth).tolist() == [list(box) for box in boxes]


def task(**options: Any) -> Detection:
    return Detection(
        "nodule", DetectionOptions(**OPTIONS, **options), {"anchors_mm": [[4, 4, 4]], "spacing": [1, 1, 2]}
    )


def test_anchors_are_the_medians_of_three_groups_by_volume() -> None:
    sizes = [[1.0, 1, 1], [2, 1, 1], [4, 4, 4], [5, 4, 4], [9, 9, 9], [9, 9, 11]]
    learned = task().fit([np.array(sizes[:4]), np.empty((0, 3)), np.array(sizes[4:])])
    assert learned["anchors_mm"] == [(1.5, 1, 1), (4.5, 4, 4), (9, 9, 10)]
    assert task().fit([np.array(sizes[:1] * 3)])["anchors_mm"] == [(1, 1, 1)]


def test_set_anchors_win() -> None:
    assert task(anchors=[[7, 6, 5]]).fit([np.ones((2, 3))])["anchors_mm"] == [(7, 6, 5)]


def test_anchors_in_mm_become_voxels() -> None:
    _, anchors = task().head(SPEC)(features(1))
    assert (anchors[0, :, 3:6] - anchors[0, :, :3]).unique(dim=0).tolist() == [[4, 4, 2]]
    flat = Detection("nodule", DetectionOptions(**OPTIONS), {"anchors_mm": [[0.5, 4, 1]], "spacing": [1, 1, 2]})
    _, anchors = flat.head(SPEC)(features(1))
    assert (anchors[0, :, 3:6] - anchors[0, :, :3]).unique(dim=0).tolist() == [[1, 4, 1]], "a voxel at least"


def test_a_fold_without_a_lesion_cannot_be_learned() -> None:
    for truths in ([], [np.empty((0, 3))] * 2):
        with pytest.raises(CellError, match="B106"):
            task().fit(truths)


def test_a_moved_label_has_moved_boxes() -> None:
    one = task().encode(TRUTHS[2])
    other = task().encode(np.roll(TRUTHS[2], 1, axis=0))
    assert (other - one)[0].tolist() == [1, 0, 0, 1, 0, 0]


def test_of_too_many_lesions_the_largest_count() -> None:
    array = np.zeros((20, 20, 10), np.uint8)
    array[::2, ::2, ::2] = 1
    array[18:, 18:, 8:] = 1
    boxes = task(components=True).encode(array)
    assert boxes.shape == (MOST_LESIONS, 6)
    assert [18, 18, 8, 20, 20, 10] in boxes.tolist()
    assert (boxes[:, 3:] > boxes[:, :3]).all()


def test_of_a_table_a_patch_sees_the_box_of_the_part_inside() -> None:
    label = painted(np.array([[1.0, 1, 0, 7, 7, 4]]), SHAPE)
    assert task(boxes="ras").encode(label[:4])[0].tolist() == [1, 1, 0, 4, 7, 4]
    assert task(boxes="ras").encode(label[::-1].copy())[0].tolist() == [1, 1, 0, 7, 7, 4]
    assert task(boxes="ras").encode(label[7:]).count_nonzero() == 0


def test_components_and_values_differ() -> None:
    array = lesions(np.s_[0:2, 0:2, 0:2])
    array[5:, 5:, 3:] = 1
    assert len(task().reference(array)) == 1
    assert len(task(components=True).reference(array)) == 2


def test_of_boxes_on_one_lesion_the_best_is_kept_and_low_scores_are_not() -> None:
    anchors = torch.tensor(
        [[0.0, 0, 0, 4, 4, 4, 0], [0, 0, 0, 4, 4, 3, 0], [9, 9, 9, 12, 12, 12, 0], [5, 5, 5, 7, 7, 7, 0]]
    )
    prediction = torch.zeros(1, 4, 7)
    prediction[0, :, 0] = torch.tensor([1.0, 2.0, 0.0, -9.0])
    prediction[0, 2, 1] = 1.0  # one anchor's size along x
    found = task().activate((prediction, anchors[None]))[0]
    kept = found[found[:, 6] > 0]
    assert kept[:, :6].tolist() == [[0, 0, 0, 4, 4, 3], [12, 9, 9, 15, 12, 12]]
    assert kept[:, 6].tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item(), 0.5])


def test_results_are_sorted_and_counted() -> None:
    boxes = [FoundBox((float(i),) * 6, (0.0,) * 6, score) for i, score in enumerate((0.2, 0.9, 0.001))]
    result = task().result(boxes)
    assert [box.score for box in result.boxes] == [0.9, 0.2]
    assert result.cells("nodule") == {"nodule_boxes": 2, "nodule_score": 0.9}
    many = [FoundBox((0.0,) * 6, (0.0,) * 6, 0.1 + i / 1000) for i in range(130)]
    assert [box.score for box in task().result(many).boxes] == [box.score for box in many[:29:-1]]
    assert task().result([]).cells("nodule") == {"nodule_boxes": 0, "nodule_score": None}


def test_scores_of_a_case() -> None:
    truth = ((0.0, 0.0, 0.0, 4.0, 4.0, 4.0), (6.0, 6.0, 2.0, 8.0, 8.0, 4.0))
    result = task().result([FoundBox(truth[0], truth[0], 0.9), FoundBox((5.0,) * 6, (5.0,) * 6, 0.8)])
    assert task().box_scores(result, truth) == {"found": 1, "sensitivity": 0.5}
    assert task().box_scores(result, ()) == {"found": 0, "sensitivity": None}
