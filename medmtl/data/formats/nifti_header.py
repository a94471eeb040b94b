"""The header of a NIfTI file, field by field as it stands; nothing is patched, as other readers do.

Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medmtl.data.formats import ImageError, Source

MAX_GAP = 1 << 26  # bytes between header and voxels: extensions, of which nobody has as many

_TEXT_FIELDS = ("descrip", "db_name", "aux_file", "intent_name")
_EXTENSION_START = 8  # size and code

Notes = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """How the voxels are stored, as far as the header can be trusted.

    Attributes:
        shape: three axes.
        dtype: of a stored voxel, with its byte order.
        offset: byte at which the voxels begin.
        slope, inter: voxel value = slope x stored value + inter.
        notes: (code, text) of what was repaired or looks wrong.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    notes: Notes

    @property
    def scaled(self) -> bool:
        """Whether voxel values differ from stored values."""
        return (self.slope, self.inter) != (1.0, 0.0)


def header_of(source: Source) -> Nifti1Header:
    """The header's fields as they stand, in either version and byte order.

    Raises:
        ImageError: if the file begins with no header of a single-file NIfTI.
    """
    path, again = source.path, "export the image again as NIfTI"
    block = source.read(Nifti1Header.sizeof_hdr)
    for kind, magic in ((Nifti1Header, b"n+1"), (Nifti2Header, b"n+2")):
        size = kind.sizeof_hdr
        orders = [sign for sign in "<>" if block[:4] == np.array(size, f"{sign}i4").tobytes()]
        if not orders:
            continue
        block += source.read(size - len(block))
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


def layout_of(source: Source, header: Nifti1Header, max_voxels: int, *, label: bool = False) -> Layout:
    """What the header says of the voxels, checked by arithmetic before any memory is taken.

    Args:
        source: the open file.
        header: of :func:`header_of`.
        max_voxels: refused above.
        label: whether it is to be a mask; a stack of masks is then refused with another hint.

    Raises:
        ImageError: if the fields contradict each other or the file.
    """
    path, again = source.path, "export the image again"
    shape, notes = _shape(path, header, label)
    dtype, more = _dtype(path, header, label)
    voxels = math.prod(shape)
    offset = float(header["vox_offset"])
    first, last = header.single_vox_offset, min(source.capacity, MAX_GAP)
    if not first <= offset <= last or not offset.is_integer():
        found, expected = f"vox_offset {offset:g}", f"a whole number from {first} to {last}"
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
    return Layout(shape, dtype, int(offset), slope, inter, notes + more)


def skip_to_voxels(source: Source, header: Nifti1Header, layout: Layout) -> Notes:
    """Read what lies between header and voxels, and note how much of the file is text.

    The text itself, which may name a patient, is neither kept nor shown.

    Raises:
        ImageError: if an extension has a size that cannot be.
    """
    gap = layout.offset - len(header.binaryblock)
    flags = source.read(4)
    gap -= 4
    extensions = 0
    while flags[:1] > b"\0" and gap >= _EXTENSION_START:
        size = int(np.frombuffer(source.read(_EXTENSION_START)[:4].ljust(4, b"\0"), f"{header.endianness}i4")[0])
        if not _EXTENSION_START <= size <= gap:
            found, expected = f"a header extension of {size} bytes", f"{_EXTENSION_START} to {gap}"
            raise ImageError(source.path, "B092", found=found, expected=expected, fix="export the image again")
        source.read(size - _EXTENSION_START)
        gap -= size
        extensions += 1
    source.read(gap)
    texts = sum(bool(bytes(header[name]).strip(b"\0 ")) for name in _TEXT_FIELDS if name in header)
    return (("B091", f"{texts + extensions} pieces of text"),) if texts + extensions else ()


def _shape(path: Path, header: Nifti1Header, label: bool) -> tuple[tuple[int, int, int], Notes]:
    dim = [int(size) for size in header["dim"]]
    sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    if not sizes or min(sizes) < 1:
        expected = "1 to 7 axes of 1 voxel or more"
        raise ImageError(path, "B061", found=f"dim {dim}", expected=expected, fix="export the image again")
    full = tuple(sizes)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) > 3 and label:
        fix = "write one file with one value per voxel, or where masks overlap one file and one task per mask"
        raise ImageError(path, "B108", found=f"shape {full}, one-hot?", expected="three axes", fix=fix)
    if len(sizes) > 3:
        fix = "write one file per time point or channel"
        raise ImageError(path, "B074", found=f"shape {full}", expected="three axes", fix=fix)
    if len(sizes) < 3 or min(sizes) == 1:
        fix = "leave the case out"
        raise ImageError(path, "B075", found=f"shape {full}", expected="two voxels or more on three axes", fix=fix)
    notes = (("B073", f"shape {full}, read as 3D"),) if len(full) > 3 else ()
    return (sizes[0], sizes[1], sizes[2]), notes


def _dtype(path: Path, header: Nifti1Header, label: bool) -> tuple[np.dtype[Any], Notes]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except KeyError:
        dtype = np.dtype(np.void)
    if dtype.names and label:
        found, fix = f"datatype {code} (colour)", "write one value per voxel instead of a colour"
        raise ImageError(path, "B108", found=found, expected="integers", fix=fix)
    if dtype.kind == "c" or dtype.names:
        found, fix = f"datatype {code} (complex or colour)", "export one scalar channel"
        raise ImageError(path, "B066", found=found, expected="a scalar image", fix=fix)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        found, expected = f"datatype {code}", "integers or floats of at most 64 bits"
        raise ImageError(path, "B065", found=found, expected=expected, fix="export the image again")
    if bits != 8 * dtype.itemsize:
        return dtype, (("B065", f"bitpix {bits}, read as {8 * dtype.itemsize}"),)
    return dtype, ()
