"""NIfTI-1 and NIfTI-2, read so that no damage and no ambiguity gets through, and masks written so that none arises.

Common readers accept truncated files, skip the gzip checksum, patch headers and differ on geometry. So the bytes are
read here to the end of the stream, and nibabel only names the header's fields. Geometry that two readers could take
differently is refused, never guessed. The codes are those of the catalogue in ``docs/reliability.md``.

Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medmtl.data.formats import ImageError, opened
from medmtl.data.formats.nifti_geometry import affine_of
from medmtl.data.formats.nifti_header import Layout, header_of, layout_of, skip_to_voxels
from medmtl.data.formats.nifti_voxels import EXACT, Array, as_image, as_label, smallest, stored_voxels
from medmtl.data.volume import Grid, Volume
from medmtl.files import write_atomic

__all__ = ["ImageError", "read_header", "read_image", "read_label", "write_map", "write_mask"]

MAX_VOXELS = 2**31


def read_image(path: Path, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read a scan: three-dimensional, float32, scaled as its header says, every voxel finite.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        max_voxels: refused above, before any memory is taken.

    Raises:
        ImageError: if the file, its geometry or its voxels are refused.
        WorkError: if the file system fails while reading.
    """
    stored, layout, grid, digest = _read(path, max_voxels)
    return Volume(as_image(path, stored, layout), grid, digest, layout.notes)


def read_label(path: Path, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read a mask: three-dimensional, exact integers in the smallest of uint8, uint16 and int32.

    Values within 0.001 of an integer are rounded, which is noted as B098.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        max_voxels: refused above, before any memory is taken.

    Raises:
        ImageError: if the file, its geometry or its values are refused.
        WorkError: if the file system fails while reading.
    """
    stored, layout, grid, digest = _read(path, max_voxels, label=True)
    array, notes = as_label(path, stored, layout)
    return Volume(array, grid, digest, layout.notes + notes)


def read_header(path: Path, *, max_voxels: int = MAX_VOXELS) -> Grid:
    """The grid of an image or label, from its first bytes only: the rest of the file is not vouched for.

    Raises:
        ImageError: if the header or the geometry is refused.
        WorkError: if the file system fails while reading.
    """
    _refuse_pair(path)
    with opened(path, ".nii") as source:
        header = header_of(source)
        shape = layout_of(source, header, max_voxels).shape
        return Grid(shape, affine_of(path, header, shape))


def write_mask(path: Path, array: Array, grid: Grid) -> None:
    """Write a mask with a fresh header, so that nothing of the input's header text survives.

    The file appears whole or not at all, and equal masks give equal bytes. It is stored as the smallest of uint8,
    uint16 and int32 that holds the largest value; sform and qform both hold the grid's affine, with code 1 (scanner).

    Args:
        path: ending in ``.nii.gz``, or ``.nii`` for an uncompressed file.
        array: three-dimensional, integers from 0 or booleans.
        grid: where the voxels lie.

    Raises:
        ValueError: if the array does not fit the grid, or holds anything but integers from 0 to 2**24.
        OSError: if the file system fails; a file that was there before is then untouched.
    """
    if array.shape != grid.shape:
        raise ValueError(f"a mask of shape {array.shape} does not lie on a grid of shape {grid.shape}")
    if array.dtype.kind not in "biu" or array.min() < 0 or array.max() > EXACT:
        found = f"{array.dtype} {array.min()}..{array.max()}"
        raise ValueError(f"mask values must be integers in 0..{EXACT}, found {found}")
    _write(path, array.astype(smallest(int(array.max()))), grid)


def write_map(path: Path, array: Array, grid: Grid) -> None:
    """Write values as float32; otherwise as :func:`write_mask`.

    Args:
        path: ending in ``.nii.gz``, or ``.nii`` for an uncompressed file.
        array: three-dimensional, finite.
        grid: where the voxels lie.

    Raises:
        ValueError: if the array does not fit the grid, or a value is not finite.
        OSError: if the file system fails; a file that was there before is then untouched.
    """
    if array.shape != grid.shape:
        raise ValueError(f"a map of shape {array.shape} does not lie on a grid of shape {grid.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a map must be finite")
    _write(path, array.astype(np.float32), grid)


def _write(path: Path, array: Array, grid: Grid) -> None:
    header = Nifti1Header() if max(grid.shape) <= np.iinfo(np.int16).max else Nifti2Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(grid.shape)
    header.set_qform(grid.affine, code=1)
    header.set_sform(grid.affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = header.single_vox_offset
    no_extension = bytes(4)
    content = header.binaryblock + no_extension + array.tobytes(order="F")
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_atomic(path, content)


def _read(path: Path, max_voxels: int, *, label: bool = False) -> tuple[Array, Layout, Grid, str]:
    _refuse_pair(path)
    with opened(path, ".nii") as source:
        header = header_of(source)
        layout = layout_of(source, header, max_voxels, label=label)
        grid = Grid(layout.shape, affine_of(path, header, layout.shape))
        texts = skip_to_voxels(source, header, layout)
        stored, rest = stored_voxels(source, layout)
        return stored, replace(layout, notes=layout.notes + texts + rest), grid, source.sha256()


def _refuse_pair(path: Path) -> None:
    if path.name.lower().removesuffix(".gz").endswith((".hdr", ".img")):
        found, fix = "half of a .hdr/.img pair", "export the image again as .nii.gz"
        raise ImageError(path, "B058", found=found, expected="a single file", fix=fix)
