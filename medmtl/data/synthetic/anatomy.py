"""A scan: a body with an organ, vessels and texture, seen by the scanner of a site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from medmtl.data.synthetic.lesion import Array, Lesion, outline
from medmtl.data.synthetic.preset import Preset, Triple

TISSUE = 0.5
CHANNEL_FACTOR = -0.4
HETEROGENEITY = 0.6


@dataclass(frozen=True)
class Site:
    """How a site's scanner turns a tissue's brightness x into a number: gain * x ** gamma + offset."""

    gain: float
    gamma: float
    offset: float
    noise: float
    bias: float


SITES: dict[str, Site] = {
    "north": Site(gain=400.0, gamma=1.0, offset=0.0, noise=1.0, bias=0.1),
    "south": Site(gain=900.0, gamma=0.8, offset=150.0, noise=1.4, bias=0.2),
}


@dataclass(frozen=True)
class Scan:
    """What a scanner delivers, on a grid whose axes are right, anterior, superior.

    Attributes:
        channels: int16, one (X, Y, Z) array per channel.
        mask: uint8 (X, Y, Z), 1 in the lesion; all zero without one.
        spacing_mm: voxel size.
    """

    channels: tuple[npt.NDArray[np.int16], ...]
    mask: npt.NDArray[np.uint8]
    spacing_mm: Triple


def draw_scan(preset: Preset, lesion: Lesion | None, site: str, channels: int, rng: np.random.Generator) -> Scan:
    """Draw a body, lay the lesion into it and scan it."""
    spacing = np.round(np.array(preset.spacing_mm) * rng.uniform(0.94, 1.06, 3), 3)
    shape = np.floor(np.array(preset.field_mm) / spacing).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def field(scale_mm: float) -> Array:
        smooth = gaussian_filter(rng.standard_normal(points.shape[:3]), scale_mm / spacing, truncate=3)
        return np.asarray((smooth - smooth.mean()) / smooth.std())

    half = np.array(preset.field_mm) / 2
    body = _soft_step(1 - _radius(points, half * rng.uniform(0.85, 0.98, 3)) + 0.05 * field(5.0))
    organ = _soft_step(
        1 - _radius(points - half * rng.uniform(-0.3, 0.3, 3), half * rng.uniform(0.4, 0.65, 3)) + 0.15 * field(4.0)
    )
    vessels = np.exp(-(field(4.0) ** 2 + field(4.0) ** 2) / 0.08)
    texture = field(0.8) + field(2.0)
    mask, opacity, difference = np.zeros(body.shape, bool), np.zeros(body.shape), np.zeros(body.shape)
    if lesion is not None:
        mask, opacity = outline(lesion, points, body > 0.5, rng)
        difference = lesion.contrast * (1 + HETEROGENEITY * lesion.heterogeneity * field(1.2))
    images = []
    for channel in range(channels):
        factor = CHANNEL_FACTOR**channel
        image = TISSUE + 0.2 * abs(factor) * organ + preset.vessel * factor * vessels + preset.texture * texture
        image += opacity * (TISSUE + factor * difference - image)
        images.append(_acquire(body * image, SITES[site], preset.noise, field(10.0), rng))
    return Scan(tuple(images), mask.astype(np.uint8), (float(spacing[0]), float(spacing[1]), float(spacing[2])))


def _acquire(image: Array, site: Site, noise: float, bias: Array, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    received = np.maximum(image, 0) * np.exp(site.bias * bias) + site.noise * noise * rng.standard_normal(image.shape)
    # The magnitude image of a scanner is not negative: noise in air is rectified.
    return np.rint(site.gain * np.abs(received) ** site.gamma + site.offset).astype(np.int16)


def _radius(points: Array, semi_axes: Array) -> Array:
    return np.asarray(np.linalg.norm(points / semi_axes, axis=-1))


def _soft_step(level: Array) -> Array:
    """From 0 outside to 1 inside over about a voxel: the partial volume at a border."""
    return np.asarray(1 / (1 + np.exp(-np.clip(level / 0.04, -40, 40))))
