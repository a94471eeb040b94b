from __future__ import annotations

import pytest
import torch

from medmtl.inference.foreground import foreground_window
from medmtl.inference.windows import cropped, pad


def scan(body: tuple[slice, slice, slice]) -> torch.Tensor:
    """A body of 2 +- 0.1 in air of -1."""
    image = torch.full((1, 40, 30, 20), -1.0)
    image[(0, *body)] = 2 + 0.1 * torch.rand(image[(0, *body)].shape, generator=torch.Generator().manual_seed(0))
    return image


def test_the_window_lies_around_the_body_and_not_in_the_middle() -> None:
    start, lost = foreground_window(scan((slice(26, 38), slice(2, 10), slice(12, 18))), (16, 12, 8))
    assert start == (24, 0, 11)
    assert lost == 0


def test_a_few_bright_voxels_hide_no_body() -> None:
    image = scan((slice(26, 38), slice(2, 10), slice(12, 18)))
    image[0, 37, 9, 17] = 1000.0
    assert foreground_window(image, (16, 12, 8)) == ((24, 0, 11), 0.0)


def test_what_does_not_fit_is_told() -> None:
    start, lost = foreground_window(scan((slice(0, 32), slice(0, 12), slice(0, 8))), (16, 12, 8))
    assert start == (8, 0, 0)
    assert lost == pytest.approx(0.5)


def test_a_scan_of_one_value_is_looked_at_in_the_middle() -> None:
    assert foreground_window(torch.zeros((1, 40, 30, 20)), (16, 12, 8)) == ((12, 9, 6), 0.0)


def test_a_scan_that_is_too_long_and_too_thin_is_padded_behind_the_crop(caplog: pytest.LogCaptureFixture) -> None:
    """Padding is the mean, which is brighter than air, and no body."""
    image = scan((slice(0, 12), slice(2, 10), slice(12, 18)))
    assert foreground_window(image, (16, 12, 24)) == ((0, 0, -2), 0.0)
    found = cropped(image, (16, 12, 24), ["grade"])
    torch.testing.assert_close(found, pad(image[:, :16, :12], (16, 12, 24))[0])
    assert "of (40, 30, 20) voxels" in caplog.text and "leaves out" not in caplog.text


def test_the_body_is_that_of_the_first_channel_that_there_is() -> None:
    image = torch.cat([torch.zeros((1, 40, 30, 20)), scan((slice(26, 38), slice(2, 10), slice(12, 18)))])
    found = cropped(image, (16, 12, 8), ["grade"], held=(False, True))
    torch.testing.assert_close(found, image[:, 24:40, :12, 11:19])
