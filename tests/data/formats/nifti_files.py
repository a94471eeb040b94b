# mypy: disable-error-code=no-untyped-call
from __future__ import annotations

import functools
import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


class Hostile(NamedTuple):
    """One bad, or merely unusual, file.

    Attributes:
        id: of its kind, the rule first.
        content: its bytes.
        file: its name, which is part of the fault.
        code: of the finding that it must give.
        severity: of that finding; None where the file is to be accepted without one.
        label: whether it stands for a mask beside a sound image, and not for an image.
    """

    id: str
    content: bytes
    file: str
    code: str
    severity: str | None
    label: bool


def sheared(amount: float) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    affine[0, 1] = amount
    return affine


def with_affine(affine: npt.NDArray[np.float64]) -> Edit:
    """An sform that is the only one; pixdim follows its columns."""

    def edit(header: Any) -> None:
        header.set_sform(affine, code=1)
        header["qform_code"] = 0
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)

    return edit


def uncoded(header: Any) -> None:
    header["sform_code"] = header["qform_code"] = 0


def without_scale(header: Any) -> None:
    header["scl_slope"], header["scl_inter"] = 0, 5


def narrow(header: Any) -> None:
    sform_only(header)
    header["pixdim"][2] *= 1.02


def spoiled(value: float, dtype: Any = np.float32, array: npt.NDArray[Any] = VOXELS) -> bytes:
    """An image or label with one voxel of another value."""
    voxels = array.astype(dtype)
    voxels[1, 2, 3] = value
    return content_of(voxels)


def extended(*sizes: int, room: int = 64) -> bytes:
    """An image whose header says that extensions of these sizes follow; ``room`` bytes are kept for them."""
    content = content_of(edit=setting("vox_offset", 352 + room))
    extensions = b"".join(np.array([size, 6], "<i4").tobytes().ljust(max(size, 8), b"x") for size in sizes)
    return content[:348] + b"\x01\0\0\0" + extensions.ljust(room, b"\0")[:room] + content[352:]


def moved(shift: float = 0.0, *, flip: bool = False) -> npt.NDArray[np.float64]:
    affine = AFFINE.copy()
    affine[0, 3] += shift
    if flip:
        affine[:3, 1] *= -1
    return affine


def flipped(packed: bytes, place: int) -> bytes:
    """The bytes with one bit the other way round."""
    return packed[:place] + bytes([packed[place] ^ 1]) + packed[place + 1 :]


# what is no NIfTI file at all, by what it is
FOREIGN = {
    "an empty file": b"",
    "an HTML or XML page": b"\n <!DOCTYPE html><html>404</html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "an AppleDouble file of macOS": b"\x00\x05\x16\x07" + bytes(200),
    "a zip archive": b"PK\x03\x04" + bytes(200),
}

# code -> what a header may say to earn it, wherever the file stands
EDITS: tuple[tuple[str, Edit], ...] = (
    ("B057", setting("magic", b"abc")),
    ("B058", setting("magic", b"ni1")),
    ("B060", setting("sizeof_hdr", 347)),
    ("B061", setting("dim", 0, 0)),
    ("B061", setting("dim", 8, 0)),
    ("B061", setting("dim", -3, 0)),
    ("B061", setting("dim", 0, 2)),
    ("B061", setting("dim", -5, 2)),
    ("B062", setting("dim", [3, 32767, 32767, 32767, 1, 1, 1, 1])),
    ("B064", setting("vox_offset", 0)),
    ("B064", setting("vox_offset", -352)),
    ("B064", setting("vox_offset", np.nan)),
    ("B064", setting("vox_offset", 352.5)),
    ("B064", setting("vox_offset", 1e9)),
    ("B065", setting("datatype", 9999)),
    ("B065", setting("datatype", 0)),
    ("B065", setting("datatype", 1536)),
    ("B066", setting("datatype", 32)),
    ("B069", setting("scl_slope", np.nan)),
    ("B069", setting("scl_slope", np.inf)),
    ("B069", setting("scl_inter", np.nan)),
    ("B075", setting("dim", [2, 20, 6, 1, 1, 1, 1, 1])),
    ("B075", setting("dim", [3, 20, 6, 1, 1, 1, 1, 1])),
    ("B078", setting("pixdim", 0, 1)),
    ("B078", setting("pixdim", -1, 2)),
    ("B078", setting("pixdim", np.nan, 3)),
    ("B078", setting("pixdim", np.inf, 3)),
    ("B078", setting("pixdim", 3, 0)),
    ("B079", setting("xyzt_units", 1)),
    ("B079", setting("xyzt_units", 3)),
    ("B079", with_affine(np.diag([0.009, 1, 1, 1]))),
    ("B079", with_affine(np.diag([1, 51.0, 1, 1]))),
    ("B080", narrow),
    ("B081", uncoded),
    ("B082", setting("qoffset_x", AFFINE[0, 3] + 0.11)),
    ("B082", setting("quatern_b", 0.2)),
    ("B083", setting("srow_x", np.nan, 0)),
    ("B083", setting("srow_y", np.inf, 3)),
    ("B083", setting("srow_y", 0)),
    ("B083", setting("quatern_b", 1.5)),
    ("B083", setting("quatern_c", np.nan)),
    ("B084", with_affine(sheared(2e-4))),
)

# what a stack of channels or a colour is, which an image and a mask are told in different words
STACKED: tuple[Edit, ...] = (
    setting("dim", [4, 2, 2, 5, 6, 1, 1, 1]),
    setting("dim", [4, 1, 4, 5, 6, 1, 1, 1]),
    setting("dim", [5, 4, 5, 1, 1, 6, 1, 1]),
)
COLOURED: tuple[Edit, ...] = (setting("datatype", 128), setting("datatype", 2304))


@functools.cache
def hostile() -> tuple[Hostile, ...]:
    """Every file of the corpus: images B050 to B092, then masks beside an image of ``VOXELS`` on ``AFFINE``.

    Masks declare 1, 2 and 3.
    """
    counts: Counter[str] = Counter()
    files = []
    for label, made in ((False, (*_damaged(), *_headers(), *_voxels())), (True, tuple(_masks()))):
        for code, severity, content, file in made:
            counts[code] += 1
            files.append(Hostile(f"{code}-{counts[code]}", content, file, code, severity, label))
    return tuple(files)


Made = Iterator[tuple[str, str | None, bytes, str]]
GZ, PLAIN = "scan.nii.gz", "scan.nii"


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _damaged() -> Made:
    content = content_of()
    whole = packed(content)
    for foreign in FOREIGN.values():
        yield "B050", "reject", foreign, "._scan.nii.gz"
    yield "B050", "reject", b"some text " * 100, PLAIN
    yield "B050", "reject", content, "scan.dcm"
    for percent in (10, 50, 99):
        yield "B051", "reject", whole[: len(whole) * percent // 100], GZ
    yield "B052", "reject", whole[:60] + bytes(20) + whole[80:], GZ
    for trailing in (8, 4):
        yield "B053", "reject", flipped(whole, len(whole) - trailing), GZ
    for after in (b"garbage", bytes(20), whole, flipped(whole, len(whole) // 2)):
        yield "B054", "warn", whole + after, GZ
    yield "B054", "warn", packed(content + b"\0"), GZ
    yield "B054", "warn", content + b"\0", PLAIN
    yield "B055", "reject", content, GZ
    yield "B055", "reject", whole, PLAIN
    yield "B056", "reject", content[:-1], PLAIN
    yield "B056", "reject", content[:400], PLAIN
    yield "B056", "reject", packed(content[:-1]), GZ
    yield "B058", "reject", content[:348], "scan.hdr"
    yield "B058", "reject", packed(content[352:]), "scan.img.gz"
    yield "B063", "reject", packed(content + bytes(65 << 20)), GZ


def _headers() -> Made:
    for code, edit in EDITS:
        yield code, "reject", packed(content_of(edit=edit)), GZ
    for kind, order in ((nib.Nifti1Image, ">"), (nib.Nifti2Image, "<"), (nib.Nifti2Image, ">")):
        yield "B059", None, packed(content_of(kind=kind, order=order)), GZ
    yield "B065", "warn", packed(content_of(edit=setting("bitpix", 8))), GZ
    for edit in COLOURED:
        yield "B066", "reject", packed(content_of(edit=edit)), GZ
    yield "B069", None, packed(content_of(edit=without_scale)), GZ
    yield "B073", "fixed", packed(content_of(VOXELS[..., None])), GZ
    for edit in STACKED:
        yield "B074", "reject", packed(content_of(edit=edit)), GZ
    for sizes in ((0,), (-16,), (80,), (16, 0), (32, 48)):
        yield "B092", "reject", packed(extended(*sizes)), GZ


def _voxels() -> Made:
    yield "B067", "reject", packed(spoiled(2**24 + 1, np.int64)), GZ
    yield "B067", "reject", packed(spoiled(-(2**24) - 1, np.int32)), GZ
    yield "B068", "reject", packed(spoiled(1e39, np.float64)), GZ
    yield "B068", "reject", packed(content_of(edit=setting("scl_slope", 1e38))), GZ
    for value, code in ((np.nan, "B070"), (np.inf, "B071"), (-np.inf, "B071")):
        yield code, "reject", packed(spoiled(value)), GZ
        yield code, "reject", packed(spoiled(value, np.float64)), GZ
    yield "B072", "reject", packed(content_of(np.full(SHAPE, 7, np.int16))), GZ
    yield "B087", "warn", packed(content_of(affine=AFFINE * 5.5)), GZ
    yield "B087", "warn", packed(content_of(np.tile(VOXELS, (1, 1, 6)))), GZ


def _masks() -> Made:
    classes = np.stack([value == LABELS for value in range(4)], axis=-1).astype(np.uint8)
    overlapping = np.stack([value < LABELS for value in range(3)], axis=-1).astype(np.uint8)
    near = LABELS.astype(np.float32)
    near[0, 0, :2] += np.float32(0.0005)
    contents: tuple[tuple[str, str | None, bytes], ...] = (
        ("B095", "reject", content_of(LABELS[:-1])),
        ("B096", "reject", content_of(LABELS, moved(0.4))),
        ("B096", "reject", content_of(LABELS, moved(flip=True))),
        ("B096", "fixed", content_of(LABELS, moved(0.04))),
        ("B097", "reject", spoiled(0.5, np.float32, LABELS)),
        ("B097", "reject", spoiled(np.nan, np.float32, LABELS)),
        ("B097", "reject", spoiled(-1, np.int16, LABELS)),
        ("B098", "fixed", content_of(near)),
        ("B099", "reject", content_of(LABELS, edit=setting("scl_slope", 0.3))),
        ("B100", "reject", spoiled(4, np.uint8, LABELS)),
        ("B103", "reject", spoiled(2**24 + 1, np.int64, LABELS)),
        ("B103", "reject", spoiled(2**63 + 5, np.uint64, LABELS)),
        ("B103", "reject", spoiled(2**24 + 1, np.float64, LABELS)),
        ("B105", "warn", content_of(np.zeros(SHAPE, np.uint8))),
        ("B107", "warn", content_of(np.where(LABELS > 0, LABELS, 1).astype(np.uint8))),
        ("B108", "reject", content_of(classes)),
        ("B108", "reject", content_of(overlapping)),
        *(("B108", "reject", content_of(LABELS, edit=edit)) for edit in COLOURED),
        ("B109", "reject", content_of()),
    )
    for code, severity, content in contents:
        yield code, severity, packed(content), "mask.nii.gz"
