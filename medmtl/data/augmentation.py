"""The random half of the transforms: what another scan of a plausible patient could look like.

Parameters are drawn first, as a pure function of the generator given, and applied second. Probabilities and ranges
follow nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z). A draw knows what it changes: a sample
carries no label of a task that is sensitive to it, so that one careful task does not take augmentation from the others.
The work is done on plain tensors with the functions below MONAI's transforms: a sample is interpolated once, straight
from its case, and carries no metadata.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from torch.nn import functional

from medmtl.data.crop import Triple, window

AXES = {"x": 0, "y": 1, "z": 2}
ANISOTROPIC = 3.0  # ratio of spacings from which the coarse axis is left as it is
LARGEST_ANGLE = math.pi / 6
LARGEST_ANGLE_UNCUT = math.pi / 12  # where no more than the corners of a turned case may leave the sample
GENTLE_SHARE = 0.5  # of draws that leave every label of the case valid
BLUR_DEVIATIONS = 3.0  # the kernel's reach
SMALLEST_RANGE = 1e-7
VOXELS = (1, 2, 3)  # axes of an image with channels

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Draw:
    """Parameters of one sample; None where a change was not drawn.

    Attributes:
        matrix: 3x3, from places in the sample to places in the case, both in mm from their centres; None without a
            spatial change.
        shift: of the centre, in shares of the sample's extent, per axis.
        flips: array axes to mirror.
        noise: deviation and seed.
        blur: Gaussian deviation in voxels.
        brightness: factor.
        contrast: factor on the distance from the mean.
        gamma: exponent on the range scaled to 0..1.
        zoom: share of the resolution that is kept.
        changes: what of a label this may change: ``scale``, ``crop``, ``flip``, ``intensity``.
    """

    matrix: Matrix | None = None
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flips: tuple[int, ...] = ()
    noise: tuple[float, int] | None = None
    blur: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    gamma: float | None = None
    zoom: float | None = None
    changes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn for a view.

    Attributes:
        spacing: mm per axis of the samples.
        flips: array axes along which a mirror image is plausible.
        enabled: whether anything is drawn at all.
    """

    spacing: tuple[float, float, float]
    flips: tuple[int, ...] = ()
    enabled: bool = True

    @staticmethod
    def off(spacing: tuple[float, float, float]) -> Augmentation:
        """Nothing is drawn."""
        return Augmentation(spacing, enabled=False)

    @property
    def coarse(self) -> int | None:
        """The axis of thick slices, which turns, sizes and sharpness leave alone; None if voxels are about cubes."""
        return int(np.argmax(self.spacing)) if max(self.spacing) >= ANISOTROPIC * min(self.spacing) else None

    def draw(self, rng: np.random.Generator, sensitivities: Sequence[Collection[str]] = ()) -> Draw:
        """Draw the parameters of one sample. Every number is drawn every time, so that switches do not shift others.

        Half of the draws are gentle: they change nothing that any of the tasks is sensitive to. The others leave alone
        only what all of the tasks are sensitive to, so that each sample keeps a label; ``changes`` says which it loses.

        Args:
            rng: what is drawn depends on it and on ``sensitivities`` alone.
            sensitivities: of each task that the case is labelled for, what would change its label.
        """
        if not self.enabled:
            return Draw()
        chance = rng.random(9)
        angles = rng.uniform(-1, 1, 3)
        size = float(rng.uniform(0.7, 1.4))
        shift = rng.uniform(-0.05, 0.05, 3)
        mirrored = rng.random(3) < 0.5
        sigma, seed = float(rng.uniform(0, 0.25)), int(rng.integers(2**31))
        blur, zoom = float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.5, 1.0))
        brightness, contrast = float(rng.uniform(0.75, 1.25)), float(rng.uniform(0.75, 1.25))
        gamma = float(rng.uniform(0.7, 1.5))
        spared = _spared(sensitivities, gentle=bool(chance[8] < GENTLE_SHARE))
        cut, coloured = "crop" not in spared, "intensity" not in spared
        turned = chance[0] < 0.25
        sized = "scale" not in spared and chance[1] < 0.25 and (cut or size < 1)
        moved = turned or sized
        angles = angles * (LARGEST_ANGLE if cut else LARGEST_ANGLE_UNCUT) if turned else np.zeros(3)
        drawn = Draw(
            matrix=self._matrix(angles, size if sized else 1.0) if moved else None,
            shift=(float(shift[0]), float(shift[1]), float(shift[2])) if moved and cut else (0.0, 0.0, 0.0),
            flips=tuple(axis for axis in self.flips if mirrored[axis] and "flip" not in spared),
            noise=(sigma, seed) if chance[2] < 0.15 else None,
            blur=blur if chance[3] < 0.15 else None,
            brightness=brightness if coloured and chance[4] < 0.15 else None,
            contrast=contrast if coloured and chance[5] < 0.15 else None,
            gamma=gamma if coloured and chance[6] < 0.3 else None,
            zoom=zoom if chance[7] < 0.15 else None,
        )
        recoloured = (drawn.brightness, drawn.contrast, drawn.gamma) != (None, None, None)
        changed = {"scale": sized, "crop": moved and cut, "flip": bool(drawn.flips), "intensity": recoloured}
        return replace(drawn, changes=frozenset(name for name, done in changed.items() if done))

    def reach(self, draw: Draw, start: Sequence[int], shape: Triple, size: Sequence[int]) -> tuple[slice, slice, slice]:
        """The part of a case that a sample is made from, so that no more of it is read.

        Args:
            draw: of :meth:`draw`.
            start: where the sample's window begins in the case before it is moved; may be negative.
            shape: voxels of the sample.
            size: voxels of the case.
        """
        matrix, centre = self._placement(draw, start, shape)
        half = np.abs(matrix) @ ((np.array(shape) - 1) / 2)
        low = np.clip(np.floor(centre - half).astype(int), 0, np.array(size) - 1)
        high = np.clip(np.ceil(centre + half).astype(int) + 1, low + 1, size)
        return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))

    def place(
        self,
        image_CDHW: npt.NDArray[np.float32],
        labels: Mapping[str, npt.NDArray[Any]],
        draw: Draw,
        start: Sequence[int],
        shape: Triple,
    ) -> tuple[torch.Tensor, dict[str, npt.NDArray[Any]]]:
        """Move voxels from a part of a case into the sample; 0 where the sample leaves the part.

        Args:
            image_CDHW: normalised, so that 0 is its mean.
            labels: on the same voxels: integers below 2**24, moved to the nearest voxel; or float32 values with NaN
                where none counts, interpolated over those that do, and NaN where the sample leaves the part.
            draw: of :meth:`draw`.
            start: where the sample's window begins in the part before it is moved.
            shape: voxels of the sample.

        Returns:
            Image (C, *shape) and labels (*shape).
        """
        axes = tuple(axis - 3 for axis in draw.flips)
        if draw.matrix is None:
            image = torch.from_numpy(window(image_CDHW, start, shape)).flip(axes)
            flipped = {
                name: np.flip(window(label, start, shape, np.nan if label.dtype.kind == "f" else 0), axes)
                for name, label in labels.items()
            }
            return image, {name: np.ascontiguousarray(label) for name, label in flipped.items()}
        grid = _sampling_grid(*self._placement(draw, start, shape), image_CDHW.shape[1:], shape)
        image = _sample(torch.from_numpy(image_CDHW), grid, "bilinear")
        moved = {}
        for name, label in labels.items():
            if label.dtype.kind == "f":
                moved[name] = _sample_values(label, grid)
                continue
            values = _sample(torch.from_numpy(label.astype(np.float32)[None]), grid, "nearest")
            moved[name] = values[0].numpy().astype(label.dtype)
        return image, moved

    def recolour(self, image_CDHW: torch.Tensor, draw: Draw) -> torch.Tensor:
        """Apply the changes of grey values; returns a new tensor, or the same one where none was drawn."""
        if draw.noise is not None:
            generator = torch.Generator().manual_seed(draw.noise[1])
            image_CDHW = image_CDHW + draw.noise[0] * torch.randn(image_CDHW.shape, generator=generator)
        if draw.blur is not None:
            gauss = gaussian_1d(torch.tensor(draw.blur), truncated=BLUR_DEVIATIONS)
            # cut off, the kernel sums to less than 1, which would darken the image
            kernels = [torch.ones(1) if axis == self.coarse else gauss / gauss.sum() for axis in range(3)]
            image_CDHW = separable_filtering(image_CDHW[None], kernels, mode="replicate")[0]
        if draw.brightness is not None:
            image_CDHW = image_CDHW * draw.brightness
        if draw.contrast is not None:
            mean = image_CDHW.mean(VOXELS, keepdim=True)
            image_CDHW = torch.clamp((image_CDHW - mean) * draw.contrast + mean, *_range(image_CDHW))
        if draw.zoom is not None:
            whole = image_CDHW.shape[1:]
            small = [n if axis == self.coarse else max(1, round(n * draw.zoom)) for axis, n in enumerate(whole)]
            coarse = functional.interpolate(image_CDHW[None], small, mode="nearest-exact")
            image_CDHW = functional.interpolate(coarse, whole, mode="trilinear")[0]
        return image_CDHW if draw.gamma is None else _gamma(image_CDHW, draw.gamma)

    def _matrix(self, angles: npt.NDArray[np.float64], size: float) -> Matrix:
        matrix = np.eye(3) / size
        for axis, angle in enumerate(angles):
            if self.coarse is not None and axis != self.coarse:
                continue
            one, other = (axis + 1) % 3, (axis + 2) % 3
            turn = np.eye(3)
            turn[one, one] = turn[other, other] = math.cos(angle)
            turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        if self.coarse is not None:
            matrix[self.coarse, self.coarse] = 1.0
        return tuple(tuple(float(value) for value in row) for row in matrix)

    def _placement(
        self, draw: Draw, start: Sequence[int], shape: Triple
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """``matrix`` and ``centre`` in voxels: a sample's voxel v shows the place matrix @ (v - middle) + centre."""
        spacing, extent = np.array(self.spacing), np.array(shape)
        matrix = np.eye(3) if draw.matrix is None else np.array(draw.matrix) * spacing[None, :] / spacing[:, None]
        mirrored = [-1 if axis in draw.flips else 1 for axis in range(3)]
        return matrix * mirrored, np.array(start) + (extent - 1) / 2 + np.array(draw.shift) * extent


def _spared(sensitivities: Sequence[Collection[str]], *, gentle: bool) -> frozenset[str]:
    kinds = [frozenset(kind) for kind in sensitivities] or [frozenset()]
    return frozenset.union(*kinds) if gentle else frozenset.intersection(*kinds)


def _sampling_grid(
    matrix: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], source: Sequence[int], shape: Triple
) -> torch.Tensor:
    """Places for ``grid_sample``, (1, *shape, 3).

    torch counts an axis of n voxels from -1 to 1 between outer faces, voxel i at (2 i + 1) / n - 1, in order W, H, D
    (Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025). A place is a sum of one part per axis, so that no voxel
    needs a product of matrices: the same as ``affine_grid`` up to rounding, in a fraction of its time.
    """
    n = np.array(source)
    turn = matrix * np.array(shape)[None, :] / n[:, None]
    middle = (2 * centre + 1) / n - 1
    d, h, w = ((2 * np.arange(m) + 1) / m - 1 for m in shape)
    places = np.empty((3, *shape), np.float32)
    for place, (by_d, by_h, by_w), begin in zip(places, turn[::-1], middle[::-1], strict=True):
        plane = (begin + by_d * d)[:, None] + by_h * h
        np.add(plane.astype(np.float32)[:, :, None], (by_w * w).astype(np.float32), out=place)
    return torch.from_numpy(places).movedim(0, -1)[None]


def _sample(values_CDHW: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return functional.grid_sample(values_CDHW[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _sample_values(values: npt.NDArray[np.float32], grid: torch.Tensor) -> npt.NDArray[np.float32]:
    """Linear over the values that count; NaN where those that do not have half of the weight or more."""
    known = ~np.isnan(values)
    pair = torch.from_numpy(np.stack([np.where(known, values, 0), known]).astype(np.float32))
    total, share = _sample(pair, grid, "bilinear")
    found: npt.NDArray[np.float32] = torch.where(share > 0.5, total / share.clamp(min=0.5), torch.nan).numpy()
    return found


def _range(image_CDHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimum and maximum per channel, (C, 1, 1, 1)."""
    return image_CDHW.amin(VOXELS, keepdim=True), image_CDHW.amax(VOXELS, keepdim=True)


def _moments(image_CDHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation per channel, (C, 1, 1, 1)."""
    # not std_mean, whose one pass over the voxels takes ten times as long on a CPU
    mean = image_CDHW.mean(VOXELS, keepdim=True)
    return mean, (image_CDHW - mean).square().mean(VOXELS, keepdim=True).sqrt()


def _gamma(image_CDHW: torch.Tensor, exponent: float) -> torch.Tensor:
    """The range scaled to 0..1, raised to the exponent, and brought back to its mean and deviation."""
    low, high = _range(image_CDHW)
    raised = ((image_CDHW - low) / (high - low).clamp(min=SMALLEST_RANGE)) ** exponent
    mean, deviation = _moments(image_CDHW)
    raised_mean, raised_deviation = _moments(raised)
    return (raised - raised_mean) / raised_deviation.clamp(min=SMALLEST_RANGE) * deviation + mean
