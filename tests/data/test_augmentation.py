from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.networks.layers import GaussianFilter  # type: ignore[attr-defined]
from monai.transforms import AdjustContrast  # type: ignore[attr-defined]
from scipy import ndimage

from medmtl.data.augmentation import Augmentation, Draw
from medmtl.data.crop import Triple, window

Array = npt.NDArray[Any]

SPACING = (1.0, 1.5, 2.0)
SIZE: Triple = (22, 25, 19)
SHAPE: Triple = (16, 20, 24)
START = (3, 2, -2)
EVERYTHING = Augmentation(SPACING, flips=(0, 1, 2))
GREY = {
    "blur": (0.5, 1.0),
    "zoom": (0.5, 1.0),
    "brightness": (0.75, 1.25),
    "contrast": (0.75, 1.25),
    "gamma": (0.7, 1.5),
}


def case() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(2, *SIZE)), (0, 1, 1, 1)).astype(np.float32)
    return image, (image[0] > 0).astype(np.uint8) + 2 * (image[1] > 0.1).astype(np.uint8)


def draws(augmentation: Augmentation, *sensitivities: set[str], count: int = 400) -> list[Draw]:
    return [augmentation.draw(np.random.default_rng(seed), sensitivities) for seed in range(count)]


def turned(axis: int, degrees: float, size: float = 1.0) -> tuple[tuple[float, ...], ...]:
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3) / size
    c, s = math.cos(math.radians(degrees)) / size, math.sin(math.radians(degrees)) / size
    matrix[one, one], matrix[one, other], matrix[other, one], matrix[other, other] = c, -s, s, c
    return tuple(tuple(row) for row in matrix.tolist())


def by_scipy(array: Array, draw: Draw, order: Literal[0, 1]) -> Array:
    """The sample by another library: the matrix acts in mm about the middles of sample and window."""
    scale = np.diag(SPACING)
    matrix = (
        np.linalg.inv(scale) @ np.array(draw.matrix) @ scale @ np.diag([-1 if a in draw.flips else 1 for a in range(3)])
    )
    middle = (np.array(SHAPE) - 1) / 2
    offset = np.array(START) + middle + np.array(draw.shift) * SHAPE - matrix @ middle
    places = np.einsum("ij,j...->i...", matrix, np.indices(SHAPE)) + offset[:, None, None, None]
    return np.asarray(ndimage.map_coordinates(array, places, order=order, mode="grid-constant"))


def test_a_draw_is_a_function_of_its_generator() -> None:
    assert draws(EVERYTHING, count=50) == draws(EVERYTHING, count=50)
    assert len(set(draws(EVERYTHING, count=50))) > 25


def test_every_change_is_drawn_about_as_often_as_stated() -> None:
    found = draws(EVERYTHING, count=2000)
    expected = {"matrix": 1 - 0.75**2, "noise": 0.15, "blur": 0.15, "brightness": 0.15, "contrast": 0.15, "zoom": 0.15}
    for name, chance in {**expected, "gamma": 0.3}.items():
        assert np.mean([getattr(draw, name) is not None for draw in found]) == pytest.approx(chance, abs=0.035), name
    for axis in range(3):
        assert np.mean([axis in draw.flips for draw in found]) == pytest.approx(0.5, abs=0.04)


def test_what_every_task_is_sensitive_to_is_never_drawn() -> None:
    assert not any(draw.flips for draw in draws(EVERYTHING, {"flip"}))
    assert not any(draw.flips for draw in draws(EVERYTHING, {"flip"}, {"flip", "scale"}))
    flips = Augmentation(SPACING, flips=(0, 1))
    assert {axis for draw in draws(flips) for axis in draw.flips} == {0, 1}
    for draw in draws(EVERYTHING, {"scale"}):
        assert draw.matrix is None or np.linalg.det(draw.matrix) == pytest.approx(1)
    for draw in draws(EVERYTHING, {"intensity"}):
        assert (draw.brightness, draw.contrast, draw.gamma) == (None, None, None)
    for draw in draws(EVERYTHING, {"crop"}):
        assert draw.shift == (0, 0, 0)
        # smaller in the sample is larger in the case
        assert draw.matrix is None or np.linalg.det(draw.matrix) >= 1 - 1e-9


def test_a_draw_says_what_it_changes() -> None:
    found = draws(EVERYTHING, count=1000)
    for draw in found:
        size = 1.0 if draw.matrix is None else np.linalg.det(draw.matrix)
        assert ("scale" in draw.changes) == (abs(size - 1) > 1e-9)
        assert ("crop" in draw.changes) == (draw.matrix is not None)
        assert ("flip" in draw.changes) == bool(draw.flips)
        assert ("intensity" in draw.changes) == ((draw.brightness, draw.contrast, draw.gamma) != (None, None, None))
    assert frozenset.union(*(draw.changes for draw in found)) == {"scale", "crop", "flip", "intensity"}


def test_half_of_the_draws_leave_every_label_valid_and_the_others_leave_one() -> None:
    careful, careless = {"scale", "crop"}, {"intensity"}
    found = draws(EVERYTHING, careful, careless, count=4000)
    unchanged = np.mean([not draw.changes & (careful | careless) for draw in found])
    calm = (1 - 0.25) ** 2 * 0.85**2 * 0.7  # a free draw in which nothing of the kind came up
    assert unchanged == pytest.approx(0.5 + 0.5 * calm, abs=0.03)
    assert any(draw.changes & careful for draw in found) and any(draw.changes & careless for draw in found)
    assert not any(draw.changes & careful for draw in draws(EVERYTHING, careful, careful | careless))


def test_a_task_without_sensitivities_gets_more_beside_a_careful_one_than_the_careful_one_allows() -> None:
    beside = draws(EVERYTHING, set(), {"scale", "crop", "flip", "intensity"}, count=2000)
    assert np.mean([bool(draw.changes) for draw in beside]) > 0.4


@pytest.mark.parametrize(("spared", "degrees"), [(set[str](), 30), ({"crop"}, 15)])
def test_what_is_drawn_fills_its_range_and_never_leaves_it(spared: set[str], degrees: float) -> None:
    thick = Augmentation((1.0, 1.0, 4.0))  # turned about one axis, so that the angle can be read
    found = draws(thick, spared, count=1500)
    planes = [np.array(draw.matrix)[:2, :2] for draw in found if draw.matrix is not None]
    drawn = {
        "angle": [math.degrees(math.atan2(plane[1, 0], plane[0, 0])) for plane in planes],
        "size": [np.linalg.det(plane) ** -0.5 for plane in planes],
        "shift": [share for draw in found for share in draw.shift],
        "noise": [draw.noise[0] for draw in found if draw.noise is not None],
        **{name: [value for draw in found if (value := getattr(draw, name)) is not None] for name in GREY},
    }
    wanted = {"angle": (-degrees, degrees), "size": (0.7, 1.4), "shift": (-0.05, 0.05), "noise": (0, 0.25), **GREY}
    if "crop" in spared:
        wanted |= {"size": (0.7, 1.0), "shift": (0.0, 0.0)}
    for name, (low, high) in wanted.items():
        margin = 0.05 * (high - low)
        assert low - 1e-9 <= min(drawn[name]) <= low + margin + 1e-9, name
        assert high - margin - 1e-9 <= max(drawn[name]) <= high + 1e-9, name


def test_switches_do_not_shift_the_other_draws() -> None:
    for all_on, no_scale in zip(draws(EVERYTHING), draws(EVERYTHING, {"scale"}), strict=True):
        moved = {"matrix": None, "shift": (0.0, 0.0, 0.0), "changes": frozenset()}
        assert replace(no_scale, **moved) == replace(all_on, **moved)


def test_off_draws_nothing() -> None:
    assert set(draws(Augmentation.off(SPACING))) == {Draw()}


def test_thick_slices_are_neither_turned_nor_resized_nor_blurred() -> None:
    thick = Augmentation((1.3, 1.3, 9.6))
    assert thick.coarse == 2
    matrices = [np.array(draw.matrix) for draw in draws(thick) if draw.matrix is not None]
    assert len(matrices) > 100
    for matrix in matrices:
        assert np.allclose(matrix[2], [0, 0, 1]) and np.allclose(matrix[:, 2], [0, 0, 1])
    slices = torch.zeros(1, 6, 6, 5)
    slices[..., 2] = torch.rand(6, 6)
    for draw in (Draw(blur=1.0), Draw(zoom=0.5)):
        changed = thick.recolour(slices, draw)
        assert changed[..., 2].any() and not changed[..., [0, 1, 3, 4]].any()


@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_without_a_matrix_voxels_are_copied(flips: tuple[int, ...]) -> None:
    image, label = case()
    placed, labels = EVERYTHING.place(image, {"organ": label}, Draw(flips=flips), START, SHAPE)
    expected = window(image, START, SHAPE)
    assert np.array_equal(placed.numpy(), np.flip(expected, tuple(axis + 1 for axis in flips)))
    assert np.array_equal(labels["organ"], np.flip(window(label, START, SHAPE), flips))
    torch.from_numpy(labels["organ"])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_moved_samples_agree_with_scipy(axis: int) -> None:
    image, label = case()
    draw = Draw(matrix=turned(axis, 25, 1.2), shift=(0.05, -0.03, 0.02), flips=(axis, (axis + 1) % 3))
    placed, labels = EVERYTHING.place(image, {"organ": label}, draw, START, SHAPE)
    for channel, expected in zip(placed.numpy(), image, strict=True):
        assert np.allclose(channel, by_scipy(expected, draw, 1), atol=2e-6)
    agreement = labels["organ"] == by_scipy(label, draw, 0)
    assert agreement.mean() > 0.999
    assert labels["organ"].dtype == label.dtype


def test_the_part_within_reach_is_all_that_a_sample_needs() -> None:
    image, label = case()
    spatial = [*[draw for draw in draws(EVERYTHING) if draw.matrix is not None][:60], Draw(), Draw(flips=(1,))]
    smaller = 0
    for draw, start in itertools.product(spatial, [START, (8, 9, -2), (-4, 0, 0)]):
        part = EVERYTHING.reach(draw, start, SHAPE, SIZE)
        inside = [s - p.start for s, p in zip(start, part, strict=True)]
        small = image[(slice(None), *part)]
        smaller += small.size < image.size
        placed, labels = EVERYTHING.place(small, {"organ": label[part]}, draw, inside, SHAPE)
        whole, whole_labels = EVERYTHING.place(image, {"organ": label}, draw, start, SHAPE)
        assert torch.allclose(placed, whole, atol=1e-4)
        assert np.mean(labels["organ"] == whole_labels["organ"]) > 0.999
    assert smaller > 20
    assert EVERYTHING.reach(Draw(), START, SHAPE, SIZE) == (slice(3, 19), slice(2, 22), slice(0, 19))


def test_turning_keeps_lengths_in_mm_and_resizing_changes_them() -> None:
    where = (np.indices(SIZE).reshape(3, -1).T - (np.array(SIZE) - 1) / 2) * SPACING
    ball = (np.linalg.norm(where, axis=1) < 9).reshape(SIZE).astype(np.float32)
    start = (0, 0, 0)
    for axis in range(3):
        same, _ = EVERYTHING.place(ball[None], {}, Draw(matrix=turned(axis, 30)), start, SIZE)
        assert np.abs(same[0].numpy() - ball).mean() < 0.04
    larger, _ = EVERYTHING.place(ball[None], {}, Draw(matrix=turned(0, 0, 1.2)), start, SIZE)
    assert float(larger.sum()) / float(ball.sum()) == pytest.approx(1.2**3, rel=0.05)


def test_gamma_agrees_with_monai() -> None:
    image = torch.from_numpy(case()[0])
    expected = torch.stack([AdjustContrast(1.4, retain_stats=True)(channel[None])[0] for channel in image])
    result = EVERYTHING.recolour(image, Draw(gamma=1.4))
    assert np.allclose(result.numpy(), np.asarray(expected), atol=1e-4)
    assert torch.allclose(result.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-5)


def test_blur_agrees_with_monai() -> None:
    image = torch.from_numpy(case()[0])
    expected = GaussianFilter(3, 0.8, truncated=3.0)
    weight = expected(torch.ones(1, 1, 9, 9, 9))[0, 0, 4, 4, 4]
    inner = (slice(None),) + (slice(3, -3),) * 3
    result = EVERYTHING.recolour(image, Draw(blur=0.8))
    assert torch.allclose(result[inner], expected(image[None])[0][inner] / weight, atol=1e-6)


def test_contrast_keeps_mean_side_and_range() -> None:
    image = torch.from_numpy(case()[0])
    for factor in (0.75, 1.25):
        result = EVERYTHING.recolour(image, Draw(contrast=factor))
        mean = image.mean((1, 2, 3), keepdim=True)
        expected = ((image - mean) * factor + mean).numpy()
        low, high = image.numpy().min((1, 2, 3), keepdims=True), image.numpy().max((1, 2, 3), keepdims=True)
        assert np.allclose(result.numpy(), np.clip(expected, low, high), atol=1e-6)
    assert torch.allclose(EVERYTHING.recolour(image, Draw(brightness=1.2)), image * 1.2)


def test_noise_has_its_deviation_and_seed() -> None:
    image = torch.zeros(1, 30, 30, 30)
    first, again, other = (EVERYTHING.recolour(image, Draw(noise=(0.2, seed))) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(0.2, rel=0.03)


def test_lower_resolution_keeps_shape_and_loses_detail() -> None:
    checks = torch.from_numpy(np.indices((16, 16, 16)).sum(0) % 2).float()[None]
    result = EVERYTHING.recolour(checks, Draw(zoom=0.5))
    assert result.shape == checks.shape
    smooth = torch.from_numpy(np.linspace(0, 1, 16, dtype=np.float32)).expand(1, 16, 16, 16)
    assert (EVERYTHING.recolour(smooth, Draw(zoom=0.5)) - smooth).abs().max() < 0.1
    assert result.std() < 0.5 * checks.std()


def test_a_constant_image_stays_finite_and_inputs_stay_as_they_were() -> None:
    constant = torch.full((1, 6, 6, 6), 2.0)
    every = Draw(noise=None, blur=1.0, brightness=1.1, contrast=0.8, gamma=1.3, zoom=0.6)
    assert torch.allclose(EVERYTHING.recolour(constant, every), torch.tensor(2.2))
    image = torch.from_numpy(case()[0])
    before = image.clone()
    EVERYTHING.recolour(image, replace(every, noise=(0.1, 0)))
    assert torch.equal(image, before)
    assert EVERYTHING.recolour(image, Draw()) is image


@pytest.mark.parametrize("draw", [Draw(flips=(0, 2)), Draw(matrix=turned(2, 25), shift=(0.1, 0.0, -0.2), flips=(1,))])
def test_a_map_moves_as_an_image_and_has_no_value_beyond_the_case(draw: Draw) -> None:
    image, _ = case()
    values = image[0] + 5
    hole = values.copy()
    hole[: len(hole) // 2] = np.nan
    even = np.where(np.isnan(hole), hole, np.float32(3))
    labels = {"all": values, "hole": hole, "even": even}
    placed, moved = EVERYTHING.place(values[None], labels, draw, START, SHAPE)
    ones, _ = EVERYTHING.place(np.ones_like(values)[None], {}, draw, START, SHAPE)
    inside, beyond = ones[0].numpy() > 0.999, ones[0].numpy() < 0.499
    assert inside.any()
    assert beyond.any()
    np.testing.assert_allclose(moved["all"][inside], placed[0].numpy()[inside], rtol=1e-4)
    assert np.isnan(moved["all"][beyond]).all()
    known = ~np.isnan(moved["hole"])
    assert 0 < known.sum() < (~np.isnan(moved["all"])).sum()
    assert moved["hole"].dtype == np.float32
    np.testing.assert_allclose(moved["even"][known], 3, rtol=1e-5)  # also where some of the weight does not count
