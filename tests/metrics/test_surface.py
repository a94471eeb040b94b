"""HD95 and NSD against MONAI and against all pairs of surface voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medmtl.metrics.surface import SurfaceScores, surface_scores

SPACING = (2.5, 0.7, 1.1)


def blob(seed: int, shape: tuple[int, ...] = (9, 14, 12)) -> np.ndarray:
    """An irregular ball with holes, often cut by the border of the image."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    centre = random.uniform(0, shape)
    ball = (((grid - centre) * SPACING[: len(shape)]) ** 2).sum(axis=-1) < 36
    return np.asarray(ball & (random.random(shape) < 0.95))


# MONAI 1.6.1 warns of an argument that it passes itself.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.7, 2.0])
def test_scores_are_monais(seed: int, tolerance: float) -> None:
    predicted, truth = blob(seed), blob(seed + 100)
    pair = torch.from_numpy(predicted)[None, None], torch.from_numpy(truth)[None, None]
    hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=SPACING)
    nsd = compute_surface_dice(*pair, [tolerance], include_background=True, spacing=SPACING)
    scores = surface_scores(predicted, truth, SPACING, tolerance)
    assert scores.hd95_mm == pytest.approx(hd95.item(), abs=1e-4)
    assert scores.nsd == pytest.approx(nsd.item(), abs=1e-4)


def surface_points(mask: np.ndarray) -> np.ndarray:
    """Voxels with a face neighbour outside, found one by one, in mm."""
    padded = np.pad(mask, 1)
    steps = [step for axis in np.eye(3, dtype=int) for step in (axis, -axis)]
    found = [p for p in np.argwhere(padded) if not all(padded[tuple(p + step)] for step in steps)]
    return np.array(found) * SPACING


def test_scores_are_those_of_all_pairs_of_surface_voxels() -> None:
    predicted, truth = blob(3), blob(103)
    distance = np.linalg.norm(surface_points(predicted)[:, None] - surface_points(truth)[None], axis=-1)
    ways = distance.min(axis=1), distance.min(axis=0)
    scores = surface_scores(predicted, truth, SPACING, 2.0)
    assert scores.hd95_mm == pytest.approx(max(np.percentile(way, 95) for way in ways))
    assert scores.nsd == pytest.approx(np.mean(np.concatenate(ways) <= 2.0))


def test_a_known_shift() -> None:
    truth = np.zeros((6, 6, 20), dtype=bool)
    truth[2:4, 2:4, 2:4] = True
    scores = surface_scores(np.roll(truth, 10, axis=2), truth, (1.0, 1.0, 0.1), 1.0)
    # Ten voxels of 0.1 mm are 1 mm for one half of the voxels and 0.9 mm for the other.
    assert scores.hd95_mm == pytest.approx(1.0)
    assert scores.nsd == 1.0


def test_identical_masks() -> None:
    assert surface_scores(blob(1), blob(1), SPACING) == SurfaceScores(0.0, 1.0)


def test_empty_masks() -> None:
    full, empty = np.ones((3, 4, 12), dtype=bool), np.zeros((3, 4, 12), dtype=bool)
    assert surface_scores(empty, empty, (1, 1, 1)) == SurfaceScores(None, None)
    assert surface_scores(full, empty, (1, 1, 1)) == SurfaceScores(pytest.approx(13.0), 0.0)
    assert surface_scores(empty, full, (2, 2, 2)) == SurfaceScores(pytest.approx(26.0), 0.0)


def test_a_wrong_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 3 numbers"):
        surface_scores(blob(1), blob(1), (1.0, 1.0))
