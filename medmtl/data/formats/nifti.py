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
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medmtl.data.formats import CHUNK, ImageError, Source, opened
from medmtl.data.geometry import corner_shift_mm
from medmtl.data.volume import Grid, Volume
from medmtl.files import write_atomic

__all__ = ["ImageError", "read_header", "read_image", "read_label", "write_mask"]

MAX_VOXELS = 2**31
SPACING_MM = (0.01, 50.0)
MAX_SHIFT_MM = 0.1
FAR_MM = 1e6  # no scanner has its origin a kilometre away
MAX_SPACING_ERROR = 0.01
MAX_SHEAR = 1e-4
MIN_DETERMINANT = 1e-6  # of the axes' unit vectors
WHOLE = 1e-3
EXACT = 2**24  # integers up to here are exact in float32

FIX_HEADER = "correct the header with the tool that wrote it"

Array = npt.NDArray[Any]
Notes = tuple[tuple[str, str], ...]


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
    return Volume(_as_image(path, stored, layout), grid, digest, layout.notes)


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
    stored, layout, grid, digest = _read(path, max_voxels)
    array, notes = _as_label(path, stored, layout)
    return Volume(array, grid, digest, layout.notes + notes)


def read_header(path: Path, *, max_voxels: int = MAX_VOXELS) -> Grid:
    """The grid of an image or label, from its first bytes only: the rest of the file is not vouched for.

    Raises:
        ImageError: if the header or the geometry is refused.
        WorkError: if the file system fails while reading.
    """
    with opened(path, ".nii") as source:
        header = _header(source)
        layout = _layout(source, header, max_voxels)
        return Grid(layout.shape, _affine(path, header, layout.shape))


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
    dtype = _smallest(int(array.max()))
    header = Nifti1Header() if max(grid.shape) <= np.iinfo(np.int16).max else Nifti2Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(grid.shape)
    header.set_qform(grid.affine, code=1)
    header.set_sform(grid.affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = header.single_vox_offset
    no_extension = bytes(4)
    content = header.binaryblock + no_extension + array.astype(dtype).tobytes(order="F")
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_atomic(path, content)


@dataclass(frozen=True)
class _Layout:
    """How the voxels are stored, as far as the header can be trusted."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    notes: Notes

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)


def _read(path: Path, max_voxels: int) -> tuple[Array, _Layout, Grid, str]:
    with opened(path, ".nii") as source:
        header = _header(source)
        layout = _layout(source, header, max_voxels)
        grid = Grid(layout.shape, _affine(path, header, layout.shape))
        stored = _stored(source, layout, len(header.binaryblock))
        return stored, layout, grid, source.sha256()


def _header(source: Source) -> Nifti1Header:
    """The header's fields as they stand, in either version and byte order; nothing is patched."""
    path, again = source.path, "export the image again as NIfTI"
    block = source.stream.read(Nifti1Header.sizeof_hdr)
    for kind, magic in ((Nifti1Header, b"n+1"), (Nifti2Header, b"n+2")):
        size = kind.sizeof_hdr
        orders = [sign for sign in "<>" if block[:4] == np.array(size, f"{sign}i4").tobytes()]
        if not orders:
            continue
        block += source.stream.read(size - len(block))
        if len(block) < size:
            found, expected = f"{len(block)} bytes", f"a header of {size}"
            raise ImageError(path, "B056", found=found, expected=expected, fix=again)
        header = kind(block, endianness=orders[0], check=False)
        held = bytes(header["magic"])[:3]
        if held == magic.replace(b"+", b"i"):
            raise ImageError(path, "B058", found="half of a .hdr/.img pair", expected="a single file", fix=again)
        if held != magic:
            raise ImageError(path, "B057", found="no NIfTI magic", expected=magic.decode(), fix=again)
        return header
    if block[344:347] == b"n+1" or block[4:7] == b"n+2":
        raise ImageError(path, "B060", found="a wrong sizeof_hdr", expected="348 or 540", fix=again)
    raise ImageError(path, "B050", found="no NIfTI header", expected="a NIfTI image", fix=again)


def _layout(source: Source, header: Nifti1Header, max_voxels: int) -> _Layout:
    path, again = source.path, "export the image again"
    shape, notes = _shape(path, header)
    dtype, more = _dtype(path, header)
    voxels = math.prod(shape)
    offset = float(header["vox_offset"])
    first = header.single_vox_offset
    if not first <= offset <= source.capacity or not offset.is_integer():
        found, expected = f"vox_offset {offset:g}", f"a whole number from {first} to the end of the file"
        raise ImageError(path, "B064", found=found, expected=expected, fix=again)
    size = int(offset) + voxels * dtype.itemsize
    if voxels > max_voxels:
        code = "B063" if size <= source.capacity else "B062"
        raise ImageError(path, code, found=f"{voxels} voxels", expected=f"at most {max_voxels}", fix="crop the image")
    if size > source.capacity:
        found = f"at most {source.capacity} bytes"
        raise ImageError(path, "B056", found=found, expected=f"{size} bytes, as the header says", fix=again)
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:  # the standard's way to say "not scaled"
        slope, inter = 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        found = f"scl_slope {slope}, scl_inter {inter}"
        raise ImageError(path, "B069", found=found, expected="finite numbers", fix=again)
    return _Layout(shape, dtype, int(offset), slope, inter, notes + more)


def _shape(path: Path, header: Nifti1Header) -> tuple[tuple[int, int, int], Notes]:
    dim = [int(size) for size in header["dim"]]
    sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    if not sizes or min(sizes) < 1:
        expected = "1 to 7 axes of 1 voxel or more"
        raise ImageError(path, "B061", found=f"dim {dim}", expected=expected, fix="export the image again")
    full = tuple(sizes)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) > 3:
        fix = "write one file per time point or channel"
        raise ImageError(path, "B074", found=f"shape {full}", expected="three axes", fix=fix)
    if len(sizes) < 3 or min(sizes) == 1:
        fix = "leave the case out"
        raise ImageError(path, "B075", found=f"shape {full}", expected="two voxels or more on three axes", fix=fix)
    notes = (("B073", f"shape {full} read as {tuple(sizes)}"),) if len(full) > 3 else ()
    return (sizes[0], sizes[1], sizes[2]), notes


def _dtype(path: Path, header: Nifti1Header) -> tuple[np.dtype[Any], Notes]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except KeyError:
        dtype = np.dtype(np.void)
    if dtype.kind == "c" or dtype.names:
        found, fix = f"datatype {code} (complex or colour)", "export one scalar channel"
        raise ImageError(path, "B066", found=found, expected="a scalar image", fix=fix)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        found, expected = f"datatype {code}", "integers or floats of at most 64 bits"
        raise ImageError(path, "B065", found=found, expected=expected, fix="export the image again")
    if bits != 8 * dtype.itemsize:
        return dtype, (("B065", f"bitpix {bits}, read as {8 * dtype.itemsize}"),)
    return dtype, ()


def _affine(path: Path, header: Nifti1Header, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """The one affine that every reader must agree on; in mm, voxel index to RAS+."""
    pixdim = [round(float(size), 6) for size in header["pixdim"][1:4]]
    if not all(math.isfinite(size) and size > 0 for size in pixdim):
        raise ImageError(path, "B078", found=f"pixdim {pixdim}", expected="three positive sizes", fix=FIX_HEADER)
    unit = int(header["xyzt_units"]) & 0b111
    if unit not in (0, 2):
        raise ImageError(path, "B079", found=f"space unit {unit}", expected="2 (mm)", fix=FIX_HEADER)
    with np.errstate(invalid="ignore"):  # a signalling NaN, which is refused below
        affines = _coded_affines(path, header)
    if not affines:
        raise ImageError(path, "B081", found="sform_code 0, qform_code 0", expected="one of them set", fix=FIX_HEADER)
    for affine in affines:
        _check_affine(path, affine, pixdim)
    if len(affines) == 2:
        shift = corner_shift_mm(Grid(shape, affines[0]), Grid(shape, affines[1]))
        if shift > MAX_SHIFT_MM:
            found, expected = f"sform and qform {shift:.3g} mm apart", f"at most {MAX_SHIFT_MM} mm"
            raise ImageError(path, "B082", found=found, expected=expected, fix=FIX_HEADER)
    return affines[0]


def _coded_affines(path: Path, header: Nifti1Header) -> list[npt.NDArray[np.float64]]:
    """Those of sform and qform whose code says that they are set."""
    affines = []
    if header["sform_code"] > 0:
        affines.append(np.asarray(header.get_sform(), dtype=np.float64))
    if header["qform_code"] > 0:
        handedness = float(header["pixdim"][0])
        if handedness not in (-1, 0, 1):
            raise ImageError(path, "B078", found=f"pixdim[0] {handedness}", expected="-1 or 1", fix=FIX_HEADER)
        header["pixdim"][0] = handedness or 1  # the standard reads 0 as 1; nibabel refuses it
        try:
            affines.append(np.asarray(header.get_qform(), dtype=np.float64))
        except ValueError:
            found, expected = "no unit quaternion", "a rotation"
            raise ImageError(path, "B083", found=found, expected=expected, fix=FIX_HEADER) from None
    return affines


def _check_affine(path: Path, affine: npt.NDArray[np.float64], pixdim: list[float]) -> None:
    columns = affine[:3, :3]
    near = (np.abs(affine) < FAR_MM).all()  # false for NaN, too
    spacing = np.linalg.norm(columns, axis=0) if near else np.zeros(3)
    if spacing.min() == 0 or abs(np.linalg.det(columns / spacing)) < MIN_DETERMINANT:
        found, expected = "a singular affine, or one that is not finite", "three independent axes"
        raise ImageError(path, "B083", found=found, expected=expected, fix=FIX_HEADER)
    shown = " x ".join(f"{size:.4g}" for size in spacing)
    if np.abs(spacing / pixdim - 1).max() > MAX_SPACING_ERROR:
        found = f"axes of {shown} mm"
        raise ImageError(path, "B080", found=found, expected=f"pixdim {pixdim} within 1 %", fix=FIX_HEADER)
    low, high = SPACING_MM
    if spacing.min() < low or spacing.max() > high:
        raise ImageError(path, "B079", found=f"voxels of {shown}", expected=f"{low:g} to {high:g} mm", fix=FIX_HEADER)
    unit = columns / spacing
    shear = np.abs(unit.T @ unit - np.eye(3)).max()
    if shear > MAX_SHEAR:
        found, expected = f"axes with a shear of {shear:.2g}", "right angles"
        raise ImageError(path, "B084", found=found, expected=expected, fix="resample the image to a straight grid")


def _stored(source: Source, layout: _Layout, header_bytes: int) -> Array:
    """The voxels as they lie in the file, and nothing after them."""
    path, stream, again = source.path, source.stream, "copy or export the file again"
    gap = layout.offset - header_bytes
    while gap and (skipped := len(stream.read(min(gap, CHUNK)))):
        gap -= skipped
    buffer = np.empty(math.prod(layout.shape) * layout.dtype.itemsize, np.uint8)
    view, filled = buffer.data, 0
    while filled < len(view) and (count := stream.readinto(view[filled : filled + CHUNK])):
        filled += count
    if filled < len(view):
        found, expected = f"{filled} bytes of voxels", f"{len(view)}, as the header says"
        raise ImageError(path, "B056", found=found, expected=expected, fix=again)
    if stream.read(1):
        raise ImageError(path, "B054", found="bytes after the voxels", expected="the end", fix=again)
    return buffer.view(layout.dtype).reshape(layout.shape, order="F")


def _as_image(path: Path, stored: Array, layout: _Layout) -> npt.NDArray[np.float32]:
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


def _as_label(path: Path, stored: Array, layout: _Layout) -> tuple[Array, Notes]:
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
    return values.astype(_smallest(high)), notes


def _scaled(stored: Array, layout: _Layout) -> npt.NDArray[np.float64]:
    return stored.astype(np.float64) * layout.slope + layout.inter


def _smallest(largest: int) -> np.dtype[Any]:
    return np.dtype(next(kind for kind in (np.uint8, np.uint16, np.int32) if largest <= np.iinfo(kind).max))


def _where(mask: npt.NDArray[np.bool_], kind: str) -> str:
    first = tuple(int(index) for index in np.unravel_index(int(mask.argmax()), mask.shape))
    return f"{int(mask.sum())} {kind} voxels, first at {first}"
