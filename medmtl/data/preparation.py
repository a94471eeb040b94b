"""The deterministic half of the transforms: files in, one array per case at working spacing out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import SpatialResample  # type: ignore[attr-defined]

from medmtl.data.box_table import boxes_of
from medmtl.data.boxes import painted
from medmtl.data.case import Case
from medmtl.data.formats.nifti import MAX_VOXELS, ImageError, read_image, read_label
from medmtl.data.geometry import canonical, canonical_grid, corner_shift_voxels, same_grid
from medmtl.data.prepared import Intensity, Preparation, Prepared
from medmtl.data.resampling import Axes, axes_between, blended, in_plane, nearest
from medmtl.data.volume import Grid, Volume, spread_sample
from medmtl.errors import InputError, WorkError
from medmtl.rng import generator

SAME_SPACING = 0.01  # relative; closer ones are not resampled
STATISTICS_VOXELS = 2_000_000  # percentiles of larger scans are taken from an even subsample
SLAB_VOXELS = 2_000_000  # interpolated at a time
PART_VOXELS = 1 << 18  # summed at a time, so that they stay in a processor's cache
FOREGROUND_SAMPLES = 1_000  # voxel indices kept per label value
SMALLEST_DEVIATION = 1e-8


def prepare_case(case: Case, preparation: Preparation, *, with_labels: bool = True) -> Prepared:
    """Read, orient to RAS and resample one case; intensities stay as they are.

    Label files are resampled by nearest neighbour, and boxes of a table drawn at working spacing; images and maps are
    resampled trilinearly, which unlike a spline cannot leave the file's range and keeps a background of zeros at zero.
    Every array is interpolated once at most, along the first scan's own axes: an oblique scan is not rotated. Nothing
    is cropped.

    Args:
        case: with its files.
        preparation: working spacing, channels and label columns.
        with_labels: whether label files are read; prediction needs none.

    Raises:
        InputError: if channels or labels do not lie on the first channel's grid, a file is not the one that was
            checked, or the case would have more voxels at working spacing than a file may have.
        WorkError: if a file that was checked is gone, or the file system fails.
    """
    hashes: dict[str, str] = {}
    notes: list[tuple[str, str]] = []
    native: Grid | None = None
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for channel in preparation.channels:
        if channel not in case.images and channel in preparation.optional:
            continue
        volume = _read(case, case.images[channel], False, hashes)
        notes += volume.notes
        native = native or volume.grid
        if same_grid(volume.grid, native):
            volume = Volume(volume.array, native)
        elif not preparation.resample_to_first:
            raise _other_grid(case, channel, volume.grid, native)
        own = canonical_grid(native)
        target = working_grid(own, preparation.spacing)
        _refuse_too_fine(case, own, target)
        arrays[channel] = to_grid(canonical(volume), target, "bilinear")
    assert native is not None, "a case has at least one channel"
    labels: dict[str, npt.NDArray[Any]] = {}
    for task, column in preparation.labels.items() if with_labels else ():
        if column in case.files and task in preparation.boxes:
            extents, hashes[str(case.files[column])] = boxes_of(case, column, preparation.boxes[task])
            labels[task] = painted(extents.in_voxels(target), target.shape)
        elif column in case.files:
            labels[task] = to_grid(canonical(_beside(case, column, True, native, hashes)), target, "nearest")
    for task, (column, mask_column) in preparation.maps.items() if with_labels else ():
        if column in case.files:
            values = _beside(case, column, False, native, hashes)
            mask = None if mask_column is None else _beside(case, mask_column, True, native, hashes)
            labels[task] = _values_to_grid(canonical(masked(values, mask)), target)
    return Prepared(
        case_id=case.case_id,
        image_CDHW=_stacked([arrays.get(name) for name in preparation.channels], target.shape),
        labels=labels,
        grid=target,
        native=native,
        statistics=tuple(_statistics(arrays[name]) if name in arrays else {} for name in preparation.channels),
        foreground={
            task: _foreground(_drawn(label), case.case_id, task, preparation.ignored.get(task, 0))
            for task, label in labels.items()
        },
        sha256=hashes,
        notes=tuple(notes),
    )


def _stacked(
    channels: Sequence[npt.NDArray[np.float32] | None], shape: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    """(C, D, H, W), 0 where a channel is absent; a single channel is not copied."""
    if len(channels) == 1 and channels[0] is not None:
        return channels[0][None]
    image = np.zeros((len(channels), *shape), np.float32)
    for found, channel in zip(image, channels, strict=True):
        if channel is not None:
            found[:] = channel
    return image


def working_grid(grid: Grid, spacing: Sequence[float]) -> Grid:
    """The grid of a RAS-ordered scan at another spacing: same directions, same outer face of the first voxel.

    The other end is the scan's to within half a voxel. Axes whose spacing differs by less than one percent keep their
    own voxels.
    """
    own = np.array(grid.spacing)
    factor = np.where(np.abs(own / np.array(spacing) - 1) < SAME_SPACING, 1.0, np.array(spacing) / own)
    shape = [max(1, round(n / f)) for n, f in zip(grid.shape, factor, strict=True)]
    affine = grid.affine.copy()
    affine[:3, :3] *= factor
    # the first voxel's outer face stays where it was; its centre moves with its size
    affine[:3, 3] = grid.affine[:3, 3] + grid.affine[:3, :3] @ ((factor - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


def normalise(
    image_CDHW: npt.NDArray[np.float32],
    statistics: Sequence[Mapping[str, float]],
    intensities: Sequence[Intensity],
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Bring each channel to about zero mean and unit deviation, as planned.

    Args:
        image_CDHW: a case or a window of it.
        statistics: of the whole case, per channel; empty for one that it lacks, which is 0 then.
        intensities: the plan's rule per channel.
        out: where to put it, a new array for None; may be the image itself.
    """
    result = np.empty(image_CDHW.shape, np.float32) if out is None else out
    for channel, scaled, own, rule in zip(image_CDHW, result, statistics, intensities, strict=True):
        if not own:
            scaled[:] = 0
        elif rule.kind == "none":
            scaled[:] = channel
        elif rule.kind == "ct":
            assert rule.clip is not None and rule.mean is not None and rule.std is not None
            _standardise(np.clip(channel, *rule.clip, out=scaled), rule.mean, rule.std, scaled)
        elif rule.kind == "zscore_nonzero":
            empty = channel == 0
            _standardise(channel, own["nonzero_mean"], own["nonzero_std"], scaled)
            scaled[empty] = 0
        else:
            _standardise(channel, own["mean"], own["std"], scaled)
    return result


def _standardise(channel: npt.NDArray[np.float32], mean: float, std: float, out: npt.NDArray[np.float32]) -> None:
    np.subtract(channel, mean, out=out)
    np.divide(out, max(std, SMALLEST_DEVIATION), out=out)


def _read(case: Case, path: Path, label: bool, hashes: dict[str, str]) -> Volume:
    try:
        volume = read_label(path) if label else read_image(path)
    except ImageError as error:
        if error.code == "B032" and path in case.sha256:
            raise WorkError(
                f"case {case.case_id!r}: {path} was there when the cohort was checked and is gone; mount or restore "
                "it, and start again"
            ) from error
        raise
    except WorkError as error:
        raise case.failed(error) from error
    case.refuse_change(path, volume.sha256)
    if volume.sha256 is not None:
        hashes[str(path)] = volume.sha256
    return volume


def masked(values: Volume, mask: Volume | None) -> Volume:
    """Values with NaN where the mask is 0; all of them without a mask.

    Raises:
        ValueError: if the shapes differ.
    """
    if mask is None:
        return values
    if mask.array.shape != values.array.shape:
        raise ValueError(f"a mask of shape {mask.array.shape} does not fit values of shape {values.array.shape}")
    return replace(values, array=np.where(mask.array != 0, values.array, np.float32(np.nan)))


def _refuse_too_fine(case: Case, own: Grid, target: Grid) -> None:
    """A scan that would have more voxels than a file may have lies about its spacing, mostly by its unit."""
    if math.prod(target.shape) > MAX_VOXELS:
        spacing = " x ".join(f"{size:.4g}" for size in own.spacing)
        raise InputError(
            f"case {case.case_id!r}: with voxels of {spacing} mm it would have {list(target.shape)} voxels at working "
            f"spacing instead of {list(own.shape)}, more than {MAX_VOXELS} in all; correct the spacing or its unit in "
            "the header",
            code="B079",
        )


def _beside(case: Case, column: str, label: bool, native: Grid, hashes: dict[str, str]) -> Volume:
    """A target's file on the grid of the first image."""
    volume = _read(case, case.files[column], label, hashes)
    if not same_grid(volume.grid, native):
        raise _other_grid(case, column, volume.grid, native)
    return Volume(volume.array, native)


def _values_to_grid(volume: Volume, target: Grid) -> npt.NDArray[np.float32]:
    """Trilinear over the values that count; NaN where those that do not have half of the weight or more."""
    known = ~np.isnan(volume.array.astype(np.float32, copy=False))
    if known.all():
        return to_grid(volume, target, "bilinear")
    share = to_grid(replace(volume, array=known.astype(np.float32)), target, "bilinear")
    total = to_grid(replace(volume, array=np.where(known, volume.array, np.float32(0))), target, "bilinear")
    values = np.full(share.shape, np.nan, np.float32)
    np.divide(total, share, out=values, where=share > 0.5)
    return values


def _drawn(label: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    """Labels as they are; of values 1 where they count, if they do not count everywhere."""
    if label.dtype.kind != "f":
        return label
    known = ~np.isnan(label)
    return np.where(known.all(), 0, known).astype(np.uint8)


def _other_grid(case: Case, name: str, found: Grid, first: Grid) -> InputError:
    where = (
        f"corners {corner_shift_voxels(found, first):.2f} voxels apart"
        if found.shape == first.shape
        else f"shape {list(found.shape)}, expected {list(first.shape)}"
    )
    return InputError(
        f"case {case.case_id!r}: {name} does not lie on the first channel's grid ({where}); resample the file, or set "
        "cohort.resample: to_first for channels"
    )


def to_grid(volume: Volume, target: Grid, mode: Literal["bilinear", "nearest"]) -> npt.NDArray[Any]:
    """Voxels at the places of ``target``; beyond the volume's faces its edge voxels go on, so no value is invented.

    Args:
        volume: RAS-ordered.
        target: of :func:`working_grid`.
        mode: ``nearest`` for labels.
    """
    if volume.grid.shape == target.shape and np.allclose(volume.grid.affine, target.affine):
        return volume.array
    axes = axes_between(volume.grid, target)
    if axes is None:
        return _turned(volume, target, mode)
    if mode == "nearest":
        return nearest(torch.from_numpy(_unsigned(volume.array)), axes).numpy().astype(volume.array.dtype, copy=False)
    return _linear(torch.from_numpy(np.asarray(volume.array, np.float32)), axes)


def _unsigned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A type that torch has, for labels in one that it can only hold."""
    return array.astype(np.int32) if array.dtype == np.uint16 else array


def _linear(array_DHW: torch.Tensor, axes: Axes) -> npt.NDArray[np.float32]:
    """A few planes at a time, so that nothing but the result is as large as the case."""
    x, y, z = axes
    found = torch.empty((x.target, y.target, z.target))
    places = x.places.clamp(0, x.source - 1)
    step = max(1, SLAB_VOXELS // (y.target * z.target))
    for first in range(0, x.target, step):
        here = places[first : first + step]
        low, high = int(here[0].floor()), int(here[-1].ceil())
        planes = blended(array_DHW[None, low : high + 1], here - low, 1)
        found[first : first + step] = in_plane(planes, axes)[0]
    return found.numpy()


def _turned(volume: Volume, target: Grid, mode: Literal["bilinear", "nearest"]) -> npt.NDArray[Any]:
    """Between grids of other directions, where every voxel has a place of its own in space."""
    # float64 holds every label value exactly
    dtype = np.float64 if mode == "nearest" else np.float32
    source = MetaTensor(
        torch.from_numpy(np.array(volume.array, dtype)[None]), affine=torch.from_numpy(volume.grid.affine)
    )
    resample = SpatialResample(mode=mode, padding_mode="border", align_corners=False, dtype=dtype)
    moved = resample(source, dst_affine=torch.from_numpy(target.affine), spatial_size=target.shape)
    return np.asarray(moved[0], volume.array.dtype)


def _statistics(array: npt.NDArray[np.float32]) -> dict[str, float]:
    flat = array.ravel()
    sample = spread_sample(array, STATISTICS_VOXELS)
    inside = int(np.count_nonzero(flat))
    mean, std = _moments(flat)
    nonzero_mean, nonzero_std = (mean, std) if inside in (0, flat.size) else _moments(flat, nonzero=True)
    low, high = np.percentile(sample, (0.5, 99.5))
    return {
        "mean": mean,
        "std": std,
        "nonzero_mean": nonzero_mean,
        "nonzero_std": nonzero_std,
        "nonzero_fraction": inside / flat.size,
        "p005": float(low),
        "p995": float(high),
        "min": float(flat.min()),
        "max": float(flat.max()),
    }


def _moments(flat: npt.NDArray[np.float32], *, nonzero: bool = False) -> tuple[float, float]:
    """Mean and deviation in float64, of which only a part of the scan is made at a time."""
    count, total, squares = 0, 0.0, 0.0
    for part in _in_parts(flat, nonzero):
        count, total = count + part.size, total + float(part.sum(dtype=np.float64))
    mean = total / count
    for part in _in_parts(flat, nonzero):
        distance = part.astype(np.float64) - mean
        # not ``distance @ distance``: BLAS takes several threads, whose number would show in the last bits, and which
        # spin for a tenth of a second on the cores that the network wants
        squares += float(np.square(distance, out=distance).sum())
    return mean, math.sqrt(squares / count)


def _in_parts(flat: npt.NDArray[np.float32], nonzero: bool) -> Iterator[npt.NDArray[np.float32]]:
    for first in range(0, flat.size, PART_VOXELS):
        part = flat[first : first + PART_VOXELS]
        yield part[part != 0] if nonzero else part


def _foreground(
    label: npt.NDArray[np.integer[Any]], case_id: str, task: str, ignored: int
) -> dict[int, npt.NDArray[np.int32]]:
    found: dict[int, npt.NDArray[np.int32]] = {}
    for value in np.unique(label):
        if value in (0, ignored):
            continue
        places = np.flatnonzero(label == value)  # a number a voxel, and not three, until few are left
        if len(places) > FOREGROUND_SAMPLES:
            rng = generator(0, "foreground", case_id, task, int(value))
            places = places[np.sort(rng.choice(len(places), FOREGROUND_SAMPLES, replace=False))]
        found[int(value)] = np.stack(np.unravel_index(places, label.shape), axis=1).astype(np.int32)
    return found
