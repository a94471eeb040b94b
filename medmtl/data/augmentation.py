"""The random half of the transforms: what another scan of a plausible patient could look like.

Parameters are drawn first, as a pure function of the generator given, and applied second. Probabilities and ranges follow
nnU-Net (Isensee et al. 2021). What a task of the view is sensitive to is never drawn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from torch.nn import functional

AXES = {"x": 0, "y": 1, "z": 2}
ANISOTROPIC = 3.0  # ratio of spacings from which a rotation stays in the plane of the fine axes


@dataclass(frozen=True)
class Draw:
    """Parameters of one sample; None where a change was not drawn.

    Attributes:
        matrix: 3x3, from output to input coordinates in mm; None without a spatial change.
        shift: in shares of the sample's extent, per axis.
        flips: array axes to mirror.
        noise: deviation and seed.
        blur: Gaussian deviation in voxels.
        brightness, contrast, gamma: factors; the exponent of ``gamma`` works on the range scaled to 0..1.
        zoom: share of the resolution that is kept.
    """

    matrix: tuple[tuple[float, ...], ...] | None = None
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flips: tuple[int, ...] = ()
    noise: tuple[float, int] | None = None
    blur: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    gamma: float | None = None
    zoom: float | None = None


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn for a view.

    Attributes:
        spacing: mm per axis of the samples.
        flips: array axes along which a mirror image is plausible.
        scale: whether sizes may change.
        shift: whether the content may move towards or past the border.
        intensity: whether grey values may change beyond noise and sharpness.
        enabled: whether anything is drawn at all.
    """

    spacing: tuple[float, float, float]
    flips: tuple[int, ...] = ()
    scale: bool = True
    shift: bool = True
    intensity: bool = True
    enabled: bool = True

    @staticmethod
    def off(spacing: tuple[float, float, float]) -> Augmentation:
        """Nothing is drawn."""
        return Augmentation(spacing, enabled=False)

    @staticmethod
    def allowed(sensitive: Collection[str], flips: Sequence[str], spacing: tuple[float, float, float]) -> Augmentation:
        """What all tasks of a view allow.

        Args:
            sensitive: the union of the tasks' ``sensitive_to``.
            flips: declared axes, of x, y and z.
            spacing: mm per axis.
        """
        axes = () if "flip" in sensitive else tuple(AXES[name] for name in flips)
        return Augmentation(spacing, axes, "scale" not in sensitive, "crop" not in sensitive, "intensity" not in sensitive)

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw the parameters of one sample. Every number is drawn every time, so that switches do not shift others."""
        if not self.enabled:
            return Draw()
        chance = rng.random(9)
        angles = rng.uniform(-math.pi / 6, math.pi / 6, 3)
        size = float(rng.uniform(0.7, 1.4))
        shift = rng.uniform(-0.05, 0.05, 3)
        mirrored = rng.random(3) < 0.5
        sigma, seed = float(rng.uniform(0, 0.25)), int(rng.integers(2**31))
        blur, zoom = float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.5, 1.0))
        brightness, contrast = float(rng.uniform(0.75, 1.25)), float(rng.uniform(0.75, 1.25))
        gamma = float(rng.uniform(0.7, 1.5))
        rotated, scaled = chance[0] < 0.25, self.scale and chance[1] < 0.25
        spatial = rotated or scaled
        return Draw(
            matrix=self._matrix(angles if rotated else np.zeros(3), size if scaled else 1.0) if spatial else None,
            shift=(float(shift[0]), float(shift[1]), float(shift[2])) if spatial and self.shift else (0.0, 0.0, 0.0),
            flips=tuple(axis for axis in self.flips if mirrored[axis]),
            noise=(sigma, seed) if chance[2] < 0.15 else None,
            blur=blur if chance[3] < 0.15 else None,
            brightness=brightness if self.intensity and chance[4] < 0.15 else None,
            contrast=contrast if self.intensity and chance[5] < 0.15 else None,
            gamma=gamma if self.intensity and chance[6] < 0.3 else None,
            zoom=zoom if chance[7] < 0.15 else None,
        )

    def apply(
        self, image_CDHW: torch.Tensor, labels: Mapping[str, torch.Tensor], draw: Draw
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Apply drawn parameters to one sample.

        Args:
            image_CDHW: normalised.
            labels: task -> integer tensor (D, H, W) of class indices below 2**24.
            draw: of :meth:`draw`.
        """
        moved = dict(labels)
        if draw.matrix is not None:
            grid = self._sampling_grid(image_CDHW.shape[1:], draw)
            image_CDHW = _sample(image_CDHW, grid, "bilinear")
            moved = {name: _sample(label[None].float(), grid, "nearest")[0].to(label.dtype) for name, label in moved.items()}
        if draw.flips:
            image_CDHW = image_CDHW.flip([axis + 1 for axis in draw.flips])
            moved = {name: label.flip(draw.flips) for name, label in moved.items()}
        return _change_intensities(image_CDHW, draw), moved

    def _matrix(self, angles: np.ndarray, size: float) -> tuple[tuple[float, ...], ...]:
        coarse = int(np.argmax(self.spacing))
        if max(self.spacing) >= ANISOTROPIC * min(self.spacing):
            angles = np.where(np.arange(3) == coarse, angles, 0.0)
        matrix = np.eye(3) / size
        for axis, angle in enumerate(angles):
            one, other = [a for a in range(3) if a != axis]
            turn = np.eye(3)
            turn[one, one] = turn[other, other] = math.cos(angle)
            turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        if max(self.spacing) >= ANISOTROPIC * min(self.spacing):
            matrix[coarse] = matrix[:, coarse] = np.eye(3)[coarse]
        return tuple(tuple(float(value) for value in row) for row in matrix)

    def _sampling_grid(self, shape: torch.Size, draw: Draw) -> torch.Tensor:
        # grid_sample wants (x, y, z) = (W, H, D) in units of half the extent; the matrix is in mm and (D, H, W)
        half = np.array([n * s / 2 for n, s in zip(shape, self.spacing, strict=True)])
        unit = (np.array(draw.matrix) * half[None, :] / half[:, None])[::-1, ::-1]
        theta = np.concatenate([unit, 2 * np.array(draw.shift)[::-1, None]], axis=1)
        return functional.affine_grid(torch.tensor(theta[None].copy(), dtype=torch.float32), [1, 1, *shape], align_corners=False)


def _sample(values_CDHW: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return functional.grid_sample(values_CDHW[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _change_intensities(image_CDHW: torch.Tensor, draw: Draw) -> torch.Tensor:
    if draw.noise is not None:
        generator = torch.Generator().manual_seed(draw.noise[1])
        image_CDHW = image_CDHW + draw.noise[0] * torch.randn(image_CDHW.shape, generator=generator)
    if draw.blur is not None:
        kernel = gaussian_1d(torch.tensor(draw.blur), truncated=2.0)
        image_CDHW = separable_filtering(image_CDHW[None], [kernel] * 3, mode="replicate")[0]
    if draw.brightness is not None:
        image_CDHW = image_CDHW * draw.brightness
    if draw.contrast is not None:
        mean = image_CDHW.mean(dim=(1, 2, 3), keepdim=True)
        low, high = image_CDHW.amin(dim=(1, 2, 3), keepdim=True), image_CDHW.amax(dim=(1, 2, 3), keepdim=True)
        image_CDHW = torch.minimum(torch.maximum((image_CDHW - mean) * draw.contrast + mean, low), high)
    if draw.zoom is not None:
        small = [max(1, round(n * draw.zoom)) for n in image_CDHW.shape[1:]]
        coarse = functional.interpolate(image_CDHW[None], small, mode="nearest-exact")
        image_CDHW = functional.interpolate(coarse, image_CDHW.shape[1:], mode="trilinear")[0]
    if draw.gamma is not None:
        image_CDHW = _gamma(image_CDHW, draw.gamma)
    return image_CDHW


def _gamma(image_CDHW: torch.Tensor, exponent: float) -> torch.Tensor:
    """The range scaled to 0..1, raised to the exponent, and brought back to its mean and deviation."""
    axes = (1, 2, 3)
    mean, deviation = image_CDHW.mean(axes, keepdim=True), image_CDHW.std(axes, keepdim=True)
    low, high = image_CDHW.amin(axes, keepdim=True), image_CDHW.amax(axes, keepdim=True)
    raised = ((image_CDHW - low) / (high - low).clamp(min=1e-7)) ** exponent
    raised_deviation = raised.std(axes, keepdim=True).clamp(min=1e-7)
    return (raised - raised.mean(axes, keepdim=True)) / raised_deviation * deviation + mean
