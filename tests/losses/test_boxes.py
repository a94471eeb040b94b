from __future__ import annotations

import math

import pytest
import torch
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher

from medmtl.losses import boxes
from medmtl.losses.boxes import box_loss, matched
from medmtl.networks.box_head import grid_anchors

BOX = torch.tensor([[3.0, 4, 2, 9, 9, 8], [10, 1, 9, 13, 4, 12]])


def anchors(*sizes: float) -> torch.Tensor:
    """Every 2 voxels of a cube of 16, one group per size."""
    groups = []
    for number, size in enumerate(sizes):
        corners = grid_anchors((8, 8, 8), (2, 2, 2), (size,) * 3)
        groups.append(torch.cat([corners, torch.full((len(corners), 1), float(number))], dim=1))
    return torch.cat(groups)


def test_the_matches_are_monais_and_each_lesions_best_anchor() -> None:
    grid = anchors(3, 6, 12)
    overlap, expected = ATSSMatcher(4, center_in_gt=False).compute_matches(BOX, grid[:, :6], [512] * 3, 1)
    found = matched(BOX, grid)
    best = overlap.argmax(dim=1)
    expected[best] = torch.arange(2)
    assert found.tolist() == expected.tolist()
    assert set(found.tolist()) == {-1, 0, 1}


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_lesions_taken_some_at_a_time_match_as_all_together(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    grid, generator = anchors(3, 6, 12), torch.Generator().manual_seed(0)
    corner = 12 * torch.rand(9, 3, generator=generator)
    box = torch.cat([corner, corner + 1 + 5 * torch.rand(9, 3, generator=generator)], dim=1)
    whole = matched(box, grid)
    assert len(set(whole.tolist())) == 10
    monkeypatch.setattr(boxes, "PAIRS", at_once * len(grid))
    assert matched(box, grid).tolist() == whole.tolist()


def test_an_anchor_that_does_not_overlap_a_lesion_is_background() -> None:
    # without any overlap all candidates reach the mean plus a deviation, which is 0
    box, grid = torch.tensor([[0.0, 0, 0, 1, 1, 1]]), anchors(2)[100:]
    assert ATSSMatcher(4, center_in_gt=False).compute_matches(box, grid[:, :6], [len(grid)], 1)[1].max() == 0
    assert set(matched(box, grid).tolist()) == {-1}


def test_a_lesion_that_no_anchor_fits_still_gets_one() -> None:
    # two candidates that overlap fully and two that do not at all: none reaches the mean plus a deviation
    box = torch.tensor([[0.0, 0, 0, 2, 2, 2]])
    four = torch.tensor([[0.0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2], [4, 4, 4, 6, 6, 6], [4, 4, 4, 6, 6, 6]])
    grid = torch.cat([four, torch.zeros(4, 1)], dim=1)
    assert ATSSMatcher(4, center_in_gt=False).compute_matches(box, four, [4], 1)[1].max() == -1
    assert matched(box, grid).tolist() == [0, -1, -1, -1]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_lesions_with_one_best_anchor_the_one_that_it_fits_better_keeps_it(order: list[int]) -> None:
    box = torch.tensor([[0.0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 2]])[order]
    grid = torch.tensor([[0.0, 0, 0, 4, 4, 4, 0], *([[8.0, 8, 8, 12, 12, 12, 0]] * 3)])
    assert matched(box, grid).tolist() == [order.index(0), -1, -1, -1]


def test_without_a_lesion_all_is_background() -> None:
    assert set(matched(torch.empty(0, 6), anchors(4)).tolist()) == {-1}


def test_the_loss_by_hand() -> None:
    grid = torch.tensor([[0.0, 0, 0, 4, 4, 4, 0], [8, 8, 8, 12, 12, 12, 0]])
    target = torch.zeros(1, 3, 6)
    target[0, 1] = torch.tensor([1.0, 0, 0, 5, 4, 8])
    logits = torch.tensor([0.3, -1.0])
    prediction = torch.zeros(1, 2, 7)
    prediction[0, :, 0] = logits
    p, q = logits.sigmoid().tolist()
    focal = -0.25 * (1 - p) ** 2 * math.log(p) - 0.75 * q**2 * math.log(1 - q)
    # the centre lies 1/4 of an anchor off along x and 1/2 along z, where the box is twice as long
    smooth = sum(abs(x) - 1 / 18 for x in (0.25, 0.5, math.log(2)))
    assert matched(target[0, 1:2], grid).tolist() == [0, -1]
    assert box_loss(prediction, grid[None], target).item() == pytest.approx(focal + smooth, rel=1e-5)


def test_without_a_lesion_only_the_scores_are_taught() -> None:
    grid = anchors(4)[None]
    prediction = torch.randn(1, 512, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.autograd.backward(box_loss(prediction, grid, torch.zeros(1, 3, 6)).sum())
    assert prediction.grad is not None
    assert prediction.grad[..., 0].count_nonzero() == 512
    assert prediction.grad[..., 1:].count_nonzero() == 0


def test_nothing_is_drawn() -> None:
    grid, target = anchors(3, 6), torch.zeros(1, 3, 6)
    target[0, :2] = BOX
    prediction = torch.randn(1, 1024, 7, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    first = box_loss(prediction, grid[None], target)
    assert torch.equal(first, box_loss(prediction, grid[None], target))
    assert torch.equal(before, torch.random.get_rng_state())
