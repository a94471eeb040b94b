"""Errors of maps against MONAI and computations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics.regression import PSNRMetric, SSIMMetric

from medmtl.metrics.map_error import MapScores, map_scores


def pair(offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 80, (12, 9, 8)).astype(np.float32) + np.float32(offset)
    return (truth + rng.normal(0, 6, truth.shape)).astype(np.float32), truth


@pytest.mark.parametrize("offset", [0.0, -30.0])
def test_psnr_and_ssim_are_monais(offset: float) -> None:
    predicted, truth = pair(offset)
    x, y = (torch.from_numpy(values)[None, None].double() for values in (predicted, truth))
    scores = map_scores(predicted, truth, 80.0)
    ssim = SSIMMetric(spatial_dims=3, data_range=80.0, kernel_type="uniform", win_size=7)
    assert scores.psnr == pytest.approx(float(PSNRMetric(max_val=80.0)(x, y)), rel=1e-6)
    assert scores.ssim == pytest.approx(float(ssim(x, y)), abs=1e-5)


def test_errors_are_over_the_voxels_that_count() -> None:
    predicted, truth = pair()
    truth[6:] = np.nan
    scores, cut = map_scores(predicted, truth, 80.0), map_scores(predicted[:6], truth[:6], 80.0)
    error = predicted[:6].astype(np.float64) - truth[:6]
    assert (scores.mae, scores.rmse, scores.psnr) == (cut.mae, cut.rmse, cut.psnr)
    assert scores.mae == pytest.approx(np.abs(error).mean())
    assert scores.rmse == pytest.approx(math.sqrt((error**2).mean()))
    assert scores.mean == pytest.approx(float(predicted[:6].mean()), rel=1e-6)
    assert scores.mean_true == pytest.approx(float(truth[:6].mean()), rel=1e-6)
    other = predicted.copy()
    other[6:] = 1000
    assert map_scores(other, truth, 80.0) == scores


def test_ssim_is_over_windows_of_what_an_axis_holds_whose_centre_counts() -> None:
    predicted, truth = (values[..., :4].copy() for values in pair(10.0))
    truth[:6, 3:] = np.nan
    x, y = (np.where(np.isnan(truth), np.nanmin(truth), values).astype(np.float64) for values in (predicted, truth))
    c1, c2 = (0.01 * 80) ** 2, (0.03 * 80) ** 2
    found = []
    for i, j, k in np.ndindex(6, 3, 2):
        if not np.isnan(truth[i + 3, j + 3, k + 1]):
            a, b = (values[i : i + 7, j : j + 7, k : k + 3] for values in (x, y))
            product = 2 * a.mean() * b.mean() + c1, 2 * ((a * b).mean() - a.mean() * b.mean()) + c2
            square = a.mean() ** 2 + b.mean() ** 2 + c1, a.var() + b.var() + c2
            found.append(np.prod(product) / np.prod(square))
    assert 0 < len(found) < 36
    assert map_scores(predicted, truth, 80.0).ssim == pytest.approx(np.mean(found), rel=1e-6)


def test_without_a_range_it_is_that_of_the_reference() -> None:
    predicted, truth = pair()
    assert map_scores(predicted, truth) == map_scores(predicted, truth, float(np.ptp(truth.astype(np.float64))))


def test_what_is_undefined_has_no_value() -> None:
    predicted, truth = pair()
    assert map_scores(predicted, np.full_like(truth, np.nan)) == MapScores()
    perfect = map_scores(truth, truth)
    assert (perfect.mae, perfect.psnr) == (0.0, None)
    assert perfect.ssim == pytest.approx(1.0)
    constant = map_scores(predicted, np.ones_like(truth))
    assert (constant.psnr, constant.ssim) == (None, None)
    with pytest.raises(ValueError, match="one shape"):
        map_scores(predicted[1:], truth)
