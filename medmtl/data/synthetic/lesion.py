"""A lesion: its traits, its outline and the texture inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from medmtl.data.synthetic.preset import Preset

SPIKES = 14
SPIKE_SHARPNESS = 14.0
EDGE_MM = 1.0

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """The traits of one lesion.

    Attributes:
        size: 0 (smallest of the preset) to 1 (largest), linear in the logarithm of the diameter.
        diameter_mm: diameter of the ball of equal volume.
        elongation, spiculation, heterogeneity: 0 to 1; together they make the malignancy.
        contrast: difference from soft tissue in the first channel.
    """

    size: float
    diameter_mm: float
    elongation: float
    spiculation: float
    heterogeneity: float
    contrast: float

    @property
    def volume_mm3(self) -> float:
        """Volume of the lesion; its mask has the nearest whole number of voxels."""
        return math.pi / 6 * self.diameter_mm**3


def draw_lesion(preset: Preset, rng: np.random.Generator) -> Lesion:
    """A lesion with a random size, grade and contrast; size and grade are independent."""
    size = rng.uniform()
    low, high = preset.diameter_mm
    grade = rng.beta(preset.polarity, preset.polarity)
    traits = np.clip(grade + rng.normal(0, preset.spread, 3), 0, 1)
    return Lesion(
        size=float(size),
        diameter_mm=float(low * (high / low) ** size),
        elongation=float(traits[0]),
        spiculation=float(traits[1]),
        heterogeneity=float(traits[2]),
        contrast=float(rng.uniform(*preset.contrast)),
    )


def outline(lesion: Lesion, points_mm: Array, body: Mask, rng: np.random.Generator) -> tuple[Mask, Array]:
    """Lay a lesion into a body: an ellipsoid with spikes, of exactly the lesion's volume.

    The volume is met by taking as many voxels as it holds, nearest first in the metric of the shape. So neither the
    shape nor the body's border changes the volume, and volume tells nothing about the class.

    Args:
        lesion: what to draw.
        points_mm: centres of the voxels, (X, Y, Z, 3), zero in the middle of the scan.
        body: voxels where a lesion may lie.
        rng: the place, the direction and the spikes.

    Returns:
        The mask, and the opacity: the mask with its edge blurred over a millimetre, 0 to 1.
    """
    half = np.abs(points_mm).max(axis=(0, 1, 2))
    reach = np.maximum(0.75 * half - 0.8 * lesion.diameter_mm, 1.0)
    centre = rng.uniform(-reach, reach)
    ratio = 1 + 1.2 * lesion.elongation
    semi_axes = 0.5 * lesion.diameter_mm * np.array([ratio ** (2 / 3), ratio ** (-1 / 3), ratio ** (-1 / 3)])
    local = (points_mm - centre) @ Rotation.from_quat(rng.standard_normal(4)).as_matrix() / semi_axes
    length = np.linalg.norm(local, axis=-1)
    directions = local / np.maximum(length, 1e-6)[..., None]
    tips = rng.standard_normal((SPIKES, 3))
    tips /= np.linalg.norm(tips, axis=1, keepdims=True)
    spikes = np.exp(SPIKE_SHARPNESS * ((directions @ tips.T).max(axis=-1) - 1))
    distance = np.where(body, length / (1 + lesion.spiculation * spikes), np.inf)
    voxel_mm3 = float(np.prod(points_mm[1, 1, 1] - points_mm[0, 0, 0]))
    count = max(1, round(lesion.volume_mm3 / voxel_mm3))
    border = np.partition(distance, count - 1, axis=None)[count - 1]
    depth_mm = (border - distance) * 0.5 * lesion.diameter_mm
    return distance <= border, np.clip(0.5 + depth_mm / EDGE_MM, 0, 1)
