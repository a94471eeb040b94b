"""Errors of values per voxel against torch and MONAI, and voxels that do not count."""

from __future__ import annotations

import pytest
import torch
from monai.metrics.regression import SSIMMetric
from torch.nn import functional

from medmtl.losses.voxel_error import ErrorKind, local_ssim, voxel_error_loss

SHAPE = (9, 8, 10)
KINDS: tuple[ErrorKind, ...] = ("l1", "l2", "l1_ssim")
by_kind = pytest.mark.parametrize("kind", KINDS)


def pair(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(batch, *SHAPE, generator=generator)
    return target + 0.5 * torch.randn(batch, *SHAPE, generator=generator), target


def test_values_are_those_of_torch_and_monai() -> None:
    predicted, target = pair()
    l1 = functional.l1_loss(predicted, target, reduction="none").flatten(1).mean(1)
    l2 = functional.mse_loss(predicted, target, reduction="none").flatten(1).mean(1)
    metric = SSIMMetric(spatial_dims=3, data_range=4.0, kernel_type="uniform", win_size=7)
    ssim = metric(predicted[:, None], target[:, None]).flatten()
    torch.testing.assert_close(voxel_error_loss(predicted, target, "l1", 4.0), l1, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(voxel_error_loss(predicted, target, "l2", 4.0), l2, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(voxel_error_loss(predicted, target, "l1_ssim", 4.0), l1 + 1 - ssim, rtol=1e-5, atol=1e-5)


@by_kind
def test_what_is_predicted_where_nothing_counts_does_not_matter(kind: ErrorKind) -> None:
    predicted, target = pair()
    target[:, :3] = torch.nan
    other = predicted.clone()
    other[:, :3] = 100.0
    other.requires_grad_()
    loss = voxel_error_loss(other, target, kind, 4.0)
    torch.testing.assert_close(loss, voxel_error_loss(predicted, target, kind, 4.0), rtol=0, atol=0)
    torch.autograd.backward(loss.sum())
    assert other.grad is not None
    assert other.grad[:, :3].count_nonzero() == 0
    assert torch.isfinite(other.grad).all()
    assert other.grad.abs().sum() > 0


def test_a_mask_is_the_mean_over_its_voxels() -> None:
    predicted, target = pair()
    target[:, 4:] = torch.nan
    cut = voxel_error_loss(predicted[:, :4], target[:, :4], "l1", 4.0)
    torch.testing.assert_close(voxel_error_loss(predicted, target, "l1", 4.0), cut)


def test_similarity_is_the_mean_over_the_windows_whose_centre_counts() -> None:
    predicted, target = pair()
    target[:, 4:] = torch.nan
    counted = ~target.isnan()
    absolute, both = (voxel_error_loss(predicted, target, kind, 4.0) for kind in ("l1", "l1_ssim"))
    similar, centre = local_ssim(predicted.where(counted, 0.0), target.where(counted, 0.0), counted, 4.0)
    assert centre.any() and not centre.all()
    expected = torch.stack([1 - one[inside].mean() for one, inside in zip(similar, centre, strict=True)])
    torch.testing.assert_close(both - absolute, expected)


@by_kind
def test_a_sample_without_a_value_costs_nothing_and_a_perfect_one_nearly_nothing(kind: ErrorKind) -> None:
    predicted, target = pair()
    assert voxel_error_loss(predicted, torch.full_like(target, torch.nan), kind, 4.0).tolist() == [0.0, 0.0]
    assert voxel_error_loss(target, target, kind, 4.0).max() < 1e-5


def test_a_window_is_no_larger_than_the_volume() -> None:
    thin = torch.rand(1, 2, 5, 9, generator=torch.Generator().manual_seed(0))
    loss = voxel_error_loss(thin * 0.9, thin, "l1_ssim", 1.0)
    assert torch.isfinite(loss).all()
