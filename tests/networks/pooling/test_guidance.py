from __future__ import annotations

import math

import pytest
import torch

from medmtl.networks.features import Guide
from medmtl.networks.pooling.guidance import extents, mean_under
from tests.networks.pooling.contract import a_map


def mask(*values: float) -> torch.Tensor:
    """A mask on a grid of 2 x 2 x 4."""
    return torch.tensor(values).reshape(1, 1, 2, 2, 4)


def test_the_mean_under_a_mask_by_hand() -> None:
    # a map of 1 x 1 x 2: each of its voxels covers eight of the mask's
    guide = mask(*[1.0, 1.0, 0.0, 0.0] * 2, *[1.0, 1.0, 0.5, 0.5] * 2)
    whole = torch.tensor([[3.0, 7.0], [-1.0, 1.0]]).reshape(1, 2, 1, 1, 2)
    # weights 1 and 0.25
    expected = torch.tensor([[(3 + 7 / 4) / 1.25, (-1 + 1 / 4) / 1.25]])
    torch.testing.assert_close(mean_under(whole, guide), expected, rtol=1e-5, atol=0)


def test_a_mask_that_is_everywhere_alike_gives_the_plain_mean() -> None:
    for value in (0.0, 1e-7, 0.3, 1.0):
        guide = torch.full((3, 1, 6, 8, 4), value)
        torch.testing.assert_close(mean_under(a_map(), guide), a_map().mean((2, 3, 4)))


def test_what_lies_outside_the_mask_hardly_counts() -> None:
    guide = torch.zeros(3, 1, 3, 4, 2)
    guide[:, :, 0, 1, 1] = 1
    other = a_map() + 10 * (1 - guide)
    torch.testing.assert_close(mean_under(other, guide), a_map()[:, :, 0, 1, 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 4, 2), (7, 9, 5), (1, 1, 1)])
def test_grids_that_do_not_divide_give_finite_fp32(shape: tuple[int, int, int]) -> None:
    guide = torch.rand(3, 1, *shape, generator=torch.Generator().manual_seed(1))
    found = mean_under(a_map().bfloat16(), guide)
    assert (found.shape, found.dtype) == ((3, 4), torch.float32)
    assert found.isfinite().all()


def test_the_extents_of_all_guides_are_logarithms_of_voxels_and_0_where_nothing_is_found() -> None:
    guides = [Guide(mask(*[0.0] * 16), torch.tensor(totals)) for totals in ([[3.0, 0.0]], [[99.0]])]
    torch.testing.assert_close(extents(guides), torch.tensor([[math.log(4), 0.0, math.log(100)]]))
