"""Where a NIfTI header says that the voxels lie; what two readers could take differently is refused, never guessed."""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from medmtl.data.formats import ImageError
from medmtl.data.geometry import corner_shift_mm, orientation
from medmtl.data.volume import Grid

SPACING_MM = (0.01, 50.0)
MAX_SHIFT_MM = 0.1
FAR_MM = 1e6  # no scanner has its origin a kilometre away
MAX_SPACING_ERROR = 0.01
MAX_SHEAR = 1e-4
MIN_DETERMINANT = 1e-6  # of the axes' unit vectors

FIX_HEADER = "correct the header with the tool that wrote it"


def affine_of(path: Path, header: Nifti1Header, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """The one affine that every reader must agree on; in mm, voxel index to RAS+.

    Raises:
        ImageError: if there is none, there are two, or it places voxels nowhere.
    """
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
        sform, qform = (Grid(shape, affine) for affine in affines)
        shift = corner_shift_mm(sform, qform)
        if shift > MAX_SHIFT_MM:
            found = f"sform {orientation(sform)}, qform {orientation(qform)}, {shift:.3g} mm apart"
            expected = f"at most {MAX_SHIFT_MM} mm"
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
        found, expected = "an affine that is singular or not finite", "three independent axes"
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
