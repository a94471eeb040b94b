# mypy: disable-error-code=no-untyped-call
from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from medmtl.data.formats.nifti import ImageError, read_image

SHAPE = (4, 5, 6)


AFFINE = np.array([[0, 0, -2.0, 3], [0.8, 0, 0, -4], [0, 1.25, 0, 5], [0, 0, 0, 1]])


VOXELS = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)


LABELS = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)


Edit = Callable[[Any], None]


def content_of(
    array: npt.NDArray[Any] = VOXELS,
    affine: npt.NDArray[np.float64] = AFFINE,
    *,
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    order: str = "<",
    edit: Edit | None = None,
) -> bytes:
    """A NIfTI file as nibabel writes it, with both codes set; ``edit`` then changes the header's fields at will."""
    image = kind(array, affine, header=kind.header_class(endianness=order), dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    data = image.to_bytes()
    size = image.header.sizeof_hdr
    header = kind.header_class(data[:size], endianness=order, check=False)
    if edit is not None:
        edit(header)
    return bytes(header.binaryblock + data[size:])


def saved(folder: Path, content: bytes, name: str = "image.nii.gz") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return path


def loaded(path: Path) -> nib.Nifti1Image:
    """The file as the reference reader sees it."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def setting(field: str, value: Any, index: int | None = None) -> Edit:
    """Change one field of a header, or one entry of it."""

    def edit(header: Any) -> None:
        if index is None:
            header[field] = value
        else:
            header[field][index] = value

    return edit


def sform_only(header: Any) -> None:
    header["qform_code"] = 0


def refusal(path: Path, read: Callable[[Path], Any] = read_image) -> ImageError:
    with pytest.raises(ImageError) as error:
        read(path)
    assert path.name in str(error.value)
    return error.value
