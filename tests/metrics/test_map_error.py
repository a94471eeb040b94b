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
    assert scores.mean_true == pytest.approx(float(truth[:6].mean()), rel=1e-6)
    other = predicted.copy()
    other[6:] = 1000
    assert map_scores(other, truth, 80.0) == scores


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
