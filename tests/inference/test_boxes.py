from __future__ import annotations

import numpy as np
import pytest
import torch

from medmtl.data.geometry import canonical_grid
from medmtl.data.volume import Grid
from medmtl.inference.boxes import in_the_core, in_the_patient, joined, moved
from medmtl.inference.windows import windows_over


def test_boxes_of_a_window_are_moved_and_empty_rows_fall_away() -> None:
    found = torch.tensor([[1.0, 1, 1, 3, 3, 3, 0.5], [0, 0, 0, 0, 0, 0, 0]])
    assert moved(found, (10, 0, -2)).tolist() == [[11, 1, -1, 13, 3, 1, 0.5]]
    assert torch.isnan(moved(torch.full((1, 7), torch.nan), (0, 0, 0))).any()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [(8, 8, 8), (20, 8, 13), (17, 30, 9)])
def test_every_place_lies_in_the_core_of_some_window(overlap: float, size: tuple[int, int, int]) -> None:
    places = np.stack(np.meshgrid(*[np.arange(n) + 0.37 for n in size], indexing="ij"), axis=-1).reshape(-1, 3)
    points = torch.from_numpy(np.concatenate([places - 0.1, places + 0.1, places[:, :1] * 0 + 0.5], axis=1)).float()
    covered = torch.zeros(len(points), dtype=torch.bool)
    for place in windows_over(size, (8, 8, 8), overlap):
        inside = torch.ones(len(points), dtype=torch.bool)
        for axis, part in enumerate(place):
            inside &= (points[:, axis] + 0.1 >= part.start) & (points[:, axis] + 0.1 < part.stop)
        index = torch.cat([points[:, :6], torch.arange(len(points))[:, None].float()], dim=1)[inside]
        covered[in_the_core(index, place, size, overlap)[:, 6].long()] = True
    assert covered.all()


def test_what_a_window_cuts_is_left_to_the_next_one() -> None:
    whole = torch.tensor([[5.0, 2, 2, 11, 6, 6, 0.7]])
    part = torch.tensor([[5.0, 2, 2, 8, 6, 6, 0.9]])
    first, second = (slice(0, 8), slice(0, 8), slice(0, 8)), (slice(4, 12), slice(0, 8), slice(0, 8))
    assert not len(in_the_core(part, first, (12, 8, 8), 0.5))
    assert len(in_the_core(whole, second, (12, 8, 8), 0.5))
    # the end of the scan cuts nothing
    assert len(in_the_core(part, first, (8, 8, 8), 0.5))


def test_a_lesion_whose_centre_two_windows_see_apart_is_kept_once() -> None:
    first, second = (slice(0, 32), slice(0, 8), slice(0, 8)), (slice(16, 48), slice(0, 8), slice(0, 8))
    for x, y in ((24.3, 23.8), (23.8, 24.3), (25.9, 22.1)):  # of a box of 8 voxels, either side of the plane at 24
        seen = [torch.tensor([[centre - 4, 2, 2, centre + 4, 6, 6, 0.9]]) for centre in (x, y)]
        kept = [in_the_core(box, place, (48, 8, 8), 0.5) for box, place in zip(seen, (first, second), strict=True)]
        assert len(joined(kept, (48, 8, 8))) == 1


def test_of_one_lesion_the_best_box_stays_inside_the_scan() -> None:
    near = torch.tensor([[-2.0, 0, 0, 4, 4, 4, 0.6]])
    rest = torch.tensor([[0.0, 0, 0, 4, 4, 4, 0.8], [6, 6, 6, 12, 9, 9, 0.3], [-4, 0, 0, -1, 2, 2, 0.9]])
    assert joined([near, rest], (10, 10, 10)).tolist() == pytest.approx(
        [pytest.approx([0, 0, 0, 4, 4, 4, 0.8]), pytest.approx([6, 6, 6, 10, 9, 9, 0.3])]
    )
    assert joined([], (4, 4, 4)).shape == (0, 7)
    assert torch.isnan(joined([torch.full((1, 7), torch.nan)], (4, 4, 4))).any()


def test_a_box_is_that_of_the_file_and_of_the_patient() -> None:
    # stored from left to right, back to front and head to feet, twice as fine as the working grid along its first axis
    affine = np.array([[0.0, 0, 2, -30], [-1, 0, 0, 40], [0, 3, 0, -10], [0, 0, 0, 1]])
    native = Grid((20, 6, 12), affine)
    upright = canonical_grid(native)
    coarse = upright.affine @ np.diag([1.0, 2, 1, 1])
    coarse[:3, 3] += upright.affine[:3, :3] @ [0, 0.5, 0]
    label = np.zeros(native.shape, bool)
    label[4:8, 1:3, 5:9] = True
    centres = np.argwhere(label) @ affine[:3, :3].T + affine[:3, 3]
    working = Grid((12, 10, 6), coarse)
    found = np.array([[5.0, 6, 1, 9, 8, 3, 0.5]])  # rows 4 to 8 of the file, from its other end
    (box,) = in_the_patient(found, working, native)
    assert box.voxels == pytest.approx((4, 1, 5, 8, 3, 9))
    half = np.array([1.0, 0.5, 1.5])
    assert box.mm == pytest.approx((*(centres.min(axis=0) - half), *(centres.max(axis=0) + half)))
    assert box.score == 0.5
    assert type(box).of(box.row()) == box


def test_of_an_oblique_scan_the_box_in_mm_holds_that_in_voxels() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    grid = Grid((9, 9, 9), turn)
    (box,) = in_the_patient(np.array([[2.0, 2, 2, 6, 4, 5, 0.5]]), grid, grid)
    assert box.voxels == pytest.approx((2, 2, 2, 6, 4, 5))
    size = np.array(box.mm[3:]) - box.mm[:3]
    assert size == pytest.approx([4 * np.cos(0.3) + 2 * np.sin(0.3), 4 * np.sin(0.3) + 2 * np.cos(0.3), 3])
