"""How close a predicted map is to a reference, over the voxels that count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

WINDOW = 7  # voxels per axis, scikit-image's default
K1, K2 = 0.01, 0.03

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class MapScores:
    """Errors of one map; None where they are undefined.

    Attributes:
        mae, rmse: in the unit of the values; None where no voxel counts.
        psnr: 20 log10(range / RMSE) in dB; None also where the error or the range is 0.
        ssim: mean structural similarity; None also where no window's centre counts, or the range is 0.
        mean, mean_true: of the predicted and the reference values.
    """

    mae: float | None = None
    rmse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    mean: float | None = None
    mean_true: float | None = None


def map_scores(predicted: FloatArray, truth: FloatArray, data_range: float | None = None) -> MapScores:
    """Errors of a map.

    SSIM takes the means, variances and covariance of a uniform window of 7 voxels per axis, or of the largest odd
    number that the axis holds, over the windows that lie inside the volume and whose centre counts, with k1 = 0.01 and
    k2 = 0.03 (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861). Voxels that do not count are set to the
    lowest counted reference value in both maps.

    Args:
        predicted: three-dimensional, finite.
        truth: of the same shape; NaN where no value counts.
        data_range: of PSNR and SSIM, highest less lowest value; None takes that of the counted reference values.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"maps must have one shape, got {predicted.shape} and {truth.shape}")
    counted = ~np.isnan(truth)
    if not counted.any():
        return MapScores()
    x, y = predicted[counted].astype(np.float64), truth[counted].astype(np.float64)
    span = float(np.ptp(y)) if data_range is None else data_range
    rmse = float(np.sqrt(np.mean((x - y) ** 2)))
    return MapScores(
        mae=float(np.abs(x - y).mean()),
        rmse=rmse,
        psnr=20 * math.log10(span / rmse) if span > 0 and rmse > 0 else None,
        ssim=_ssim(predicted, truth, counted, span) if span > 0 else None,
        mean=float(x.mean()),
        mean_true=float(y.mean()),
    )


def _ssim(predicted: FloatArray, truth: FloatArray, counted: npt.NDArray[np.bool_], span: float) -> float | None:
    # moved to the lowest value for the digits, and back below: the formula depends on where 0 is
    low = float(truth[counted].min())
    x, y = (np.where(counted, values, low).astype(np.float64) for values in (predicted, truth))
    size = [min(WINDOW, n - 1 + n % 2) for n in x.shape]
    inner = tuple(slice(n // 2, length - n // 2) for n, length in zip(size, x.shape, strict=True))

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(uniform_filter(values, size)[inner])

    dx, dy = x - low, y - low
    mx, my = mean(dx), mean(dy)
    vx, vy, cxy = mean(dx**2) - mx**2, mean(dy**2) - my**2, mean(dx * dy) - mx * my
    mx, my = mx + low, my + low
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    similar = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    centres = counted[inner]
    return float(similar[centres].mean()) if centres.any() else None
