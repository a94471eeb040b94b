"""The voxels of a NIfTI file: read to the end of the stream, then taken as an image or as a mask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.data.formats import ImageError, Source
from medmtl.data.formats.nifti_header import Layout, Notes

MAX_REST = 1 << 26  # bytes that may follow a smaller image; more of them are not a slip but fill the memory
WHOLE = 1e-3
EXACT = 2**24  # integers up to here are exact in float32

Array = npt.NDArray[Any]


def stored_voxels(source: Source, layout: Layout) -> tuple[Array, Notes]:
    """The voxels as they lie in the file; what follows them is counted.

    Raises:
        ImageError: if there are fewer bytes than the header says, or far more.
    """
    path, again = source.path, "copy or export the file again"
    buffer = np.empty(math.prod(layout.shape) * layout.dtype.itemsize, np.uint8)
    filled = source.fill(buffer.data)
    if filled < buffer.size:
        found, expected = f"{filled} bytes of voxels", f"{buffer.size}, as the header says"
        raise ImageError(path, "B056", found=found, expected=expected, fix=again)
    limit = max(MAX_REST, buffer.size)
    rest = source.finish(limit)
    if rest > limit:
        found, expected = f"over {limit} bytes after the voxels", "the end of the file"
        raise ImageError(path, "B063", found=found, expected=expected, fix=again)
    notes = (("B054", f"{rest} bytes after the image"),) if rest else ()
    return buffer.view(layout.dtype).reshape(layout.shape, order="F"), notes


def as_image(path: Path, stored: Array, layout: Layout) -> npt.NDArray[np.float32]:
    """Scaled as the header says, float32, every voxel finite.

    Raises:
        ImageError: if a value is not finite or not exact in float32.
    """
    again = "export the image again as float32"
    if not layout.scaled and stored.dtype.kind in "iu" and stored.dtype.itemsize > 2:
        largest = max(abs(int(stored.min())), abs(int(stored.max())))
        if largest > EXACT:
            raise ImageError(
                path, "B067", found=str(largest), expected=f"at most {EXACT} (exact in float32)", fix=again
            )
    image = np.empty(layout.shape, np.float32, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        for z in range(layout.shape[2]):  # by slice, so that float64 is never held for the whole volume
            image[..., z] = _scaled(stored[..., z], layout) if layout.scaled else stored[..., z]
    if not np.isfinite(image).all():
        expected, fix = "finite voxels", "replace them before the import"
        if np.isnan(image).any():
            raise ImageError(path, "B070", found=_where(np.isnan(image), "NaN"), expected=expected, fix=fix)
        if stored.dtype.kind == "f" and np.isinf(stored).any():
            raise ImageError(path, "B071", found=_where(np.isinf(stored), "infinite"), expected=expected, fix=fix)
        raise ImageError(
            path, "B068", found=_where(np.isinf(image), "too large"), expected="the range of float32", fix=again
        )
    return image


def as_label(path: Path, stored: Array, layout: Layout) -> tuple[Array, Notes]:
    """Exact integers in the smallest type that holds them.

    Raises:
        ImageError: if a value is no integer from 0 to 2**24.
    """
    notes: Notes = ()
    fix = "write the label as integers from 0"
    values = stored
    if layout.scaled or stored.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            exact = _scaled(stored, layout)
            values = np.rint(exact)
            distance = np.abs(exact - values)
        broken = ~(distance <= WHOLE)  # also true for NaN and Inf
        if broken.any():
            code = "B099" if layout.scaled else "B097"
            raise ImageError(path, code, found=_where(broken, "not whole"), expected="integers", fix=fix)
        rounded = int(np.count_nonzero(distance))
        notes = (("B098", f"{rounded} voxels rounded to integers"),) if rounded else ()
    low, high = int(values.min()), int(values.max())
    if high > EXACT:
        raise ImageError(path, "B103", found=str(high), expected=f"at most {EXACT}", fix=fix)
    if low < 0:
        raise ImageError(path, "B097", found=_where(values < 0, "negative"), expected="integers from 0", fix=fix)
    return values.astype(smallest(high)), notes


def smallest(largest: int) -> np.dtype[Any]:
    """The smallest of uint8, uint16 and int32 that holds a value."""
    return np.dtype(next(kind for kind in (np.uint8, np.uint16, np.int32) if largest <= np.iinfo(kind).max))


def _scaled(stored: Array, layout: Layout) -> npt.NDArray[np.float64]:
    return stored.astype(np.float64) * layout.slope + layout.inter


def _where(mask: npt.NDArray[np.bool_], kind: str) -> str:
    first = tuple(int(index) for index in np.unravel_index(int(mask.argmax()), mask.shape))
    return f"{int(mask.sum())} {kind} voxels, first at {first}"
