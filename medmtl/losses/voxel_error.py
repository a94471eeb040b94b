"""Errors of values per voxel, over the voxels that count."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

WINDOW = 7  # voxels per axis, scikit-image's default
K1, K2 = 0.01, 0.03

ErrorKind = Literal["l1", "l2", "l1_ssim"]


def voxel_error_loss(
    predicted_BDHW: torch.Tensor, target_BDHW: torch.Tensor, kind: ErrorKind, data_range: float, zero: float = 0.0
) -> torch.Tensor:
    """Mean error of the voxels that count, per sample.

    ::

        l1:       mean_v |x - y|
        l2:       mean_v (x - y)^2
        l1_ssim:  mean_v |x - y| + 1 - mean_w SSIM_w

    The third mixes an absolute error with structural similarity, as Zhao et al. 2017 do with its multi-scale form,
    https://doi.org/10.1109/TCI.2016.2644865; both have weight 1. For SSIM see :func:`local_ssim`.

    Args:
        predicted_BDHW: of any floating type; computed in fp32.
        target_BDHW: NaN where no value counts.
        kind: of error.
        data_range: of SSIM, on the scale of the values.
        zero: of SSIM, which depends on where 0 is: the value that stands for it.

    Returns:
        Loss per sample, shape (B,), fp32; 0 where no voxel counts.
    """
    counted_BDHW = ~torch.isnan(target_BDHW)
    # what does not count is the same on both sides, so that it has no error and no gradient
    target_BDHW = torch.where(counted_BDHW, target_BDHW.float(), 0.0)
    predicted_BDHW = torch.where(counted_BDHW, predicted_BDHW.float(), 0.0)
    error_BDHW = predicted_BDHW - target_BDHW
    error_BDHW = error_BDHW.square() if kind == "l2" else error_BDHW.abs()
    loss_B = error_BDHW.flatten(1).sum(1) / counted_BDHW.flatten(1).sum(1).clamp(min=1)
    if kind == "l1_ssim":
        similar_BDHW, centre_BDHW = local_ssim(predicted_BDHW, target_BDHW, counted_BDHW, data_range, zero)
        missing_B = ((1 - similar_BDHW) * centre_BDHW).flatten(1).sum(1)
        loss_B = loss_B + missing_B / centre_BDHW.flatten(1).sum(1).clamp(min=1)
    return loss_B


def local_ssim(
    x_BDHW: torch.Tensor, y_BDHW: torch.Tensor, counted_BDHW: torch.Tensor, data_range: float, zero: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM of every window that lies inside the volume, and whether its centre counts.

    ::

        SSIM = (2 mx my + c1) (2 cxy + c2) / ((mx^2 + my^2 + c1) (vx + vy + c2)),   c = (k range)^2, k = 0.01 and 0.03

    Means, variances and covariance are those of a uniform window of 7 voxels per axis, or of the largest odd number
    that the axis holds (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, who weight by a Gaussian).

    Args:
        x_BDHW, y_BDHW: finite.
        counted_BDHW: bool.
        data_range: above 0.
        zero: the value from which mx and my are counted.
    """
    size = [min(WINDOW, n - 1 + n % 2) for n in x_BDHW.shape[1:]]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool3d(values[:, None], size, stride=1)[:, 0]

    mx, my = mean(x_BDHW), mean(y_BDHW)
    vx, vy = mean(x_BDHW.square()) - mx.square(), mean(y_BDHW.square()) - my.square()
    cxy = mean(x_BDHW * y_BDHW) - mx * my
    mx, my = mx - zero, my - zero
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    similar = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx.square() + my.square() + c1) * (vx + vy + c2))
    inner = tuple(slice(n // 2, length - n // 2) for n, length in zip(size, x_BDHW.shape[1:], strict=True))
    return similar, counted_BDHW[(slice(None), *inner)]
