# mypy: disable-error-code=no-untyped-call
from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medmtl.data.formats import Source, nifti_voxels
from medmtl.data.formats.nifti import read_header, read_image, read_label
from medmtl.errors import InputError, WorkError
from tests.data.formats.nifti_files import (
    AFFINE,
    FOREIGN,
    LABELS,
    SHAPE,
    VOXELS,
    content_of,
    loaded,
    refusal,
    saved,
    setting,
)


@pytest.mark.covers("B059")
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz", "IMAGE.NII.GZ"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_every_version_byte_order_and_type(tmp_path: Path, name: str, order: str, kind: Any, dtype: Any) -> None:
    voxels = np.abs(VOXELS).astype(dtype) if np.dtype(dtype).kind == "u" else VOXELS.astype(dtype)
    content = content_of(voxels, kind=kind, order=order)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)

    volume = read_image(path)

    assert volume.array.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(volume.array, voxels)
    assert volume.grid.shape == SHAPE
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-6)
    assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert volume.notes == ()
    volume.array[0, 0, 0] = 1  # torch warns about arrays that cannot be written to
    header = read_header(path)
    assert header.shape == SHAPE
    np.testing.assert_array_equal(header.affine, volume.grid.affine)


def test_scaling_agrees_with_nibabel(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 0.25, -7

    path = saved(tmp_path, content_of(edit=edit))

    np.testing.assert_array_equal(read_image(path).array, loaded(path).get_fdata(dtype=np.float32))


@pytest.mark.covers("B069")
def test_slope_zero_means_none(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 0, 5

    np.testing.assert_array_equal(read_image(saved(tmp_path, content_of(edit=edit))).array, VOXELS)


@pytest.mark.covers("B085")
def test_qform_alone_and_both_handednesses(tmp_path: Path) -> None:
    tilt = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix()
    for sign in (1, -1):
        affine = np.eye(4)
        affine[:3, :3] = tilt @ np.diag([0.8, 1.25, sign * 2.0])
        affine[:3, 3] = (-31, 12, 70)

        volume = read_image(saved(tmp_path, content_of(affine=affine, edit=setting("sform_code", 0))))

        np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-4)


def test_handedness_zero_is_read_as_one(tmp_path: Path) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])

    def edit(header: Any) -> None:
        header["sform_code"], header["pixdim"][0] = 0, 0

    np.testing.assert_allclose(read_image(saved(tmp_path, content_of(affine=affine, edit=edit))).grid.affine, affine)


@pytest.mark.covers("B079")
def test_unknown_unit_is_accepted_at_a_plausible_spacing(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, content_of(edit=setting("xyzt_units", 0)))).grid.shape == SHAPE


def test_header_extensions_are_skipped(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))

    np.testing.assert_array_equal(read_image(saved(tmp_path, image.to_bytes())).array, VOXELS)


@pytest.mark.covers("B073")
def test_b073_last_axis_of_one_is_squeezed_and_noted(tmp_path: Path) -> None:
    volume = read_image(saved(tmp_path, content_of(VOXELS[..., None])))

    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.notes == (("B073", "shape (4, 5, 6, 1), read as 3D"),)


@pytest.mark.covers("B065")
def test_b065_bitpix_is_noted(tmp_path: Path) -> None:
    volume = read_image(saved(tmp_path, content_of(edit=setting("bitpix", 8))))

    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.notes == (("B065", "bitpix 8, read as 16"),)


def test_two_gzip_members_that_make_one_image_are_one_stream(tmp_path: Path) -> None:
    content = content_of()
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))

    volume = read_image(path)

    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.covers("B050")
@pytest.mark.parametrize(("found", "content"), FOREIGN.items())
@pytest.mark.parametrize("name", ["._image.nii.gz", "image.nii"])
def test_b050_other_files(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    error = refusal(path)

    assert (error.code, error.found) == ("B050", found)
    assert isinstance(error, InputError)


@pytest.mark.covers("B050")
def test_b050_other_content_and_other_ending(tmp_path: Path) -> None:
    assert refusal(saved(tmp_path, b"some text " * 100)).code == "B050"
    assert refusal(saved(tmp_path, content_of(), "image.dcm")).code == "B050"


@pytest.mark.covers("B051")
@pytest.mark.parametrize("percent", [10, 50, 99])
def test_b051_truncated_gzip(tmp_path: Path, percent: int) -> None:
    whole = gzip.compress(content_of())
    path = tmp_path / "image.nii.gz"
    path.write_bytes(whole[: len(whole) * percent // 100])

    assert refusal(path).code == "B051"


@pytest.mark.covers("B051")
def test_b051_a_trailer_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(content_of())[:-1])

    assert refusal(path).code == "B051"


def inflated(deflated: bytes) -> bytes | None:
    try:
        return zlib.decompress(deflated, wbits=-15)
    except zlib.error:
        return None


@pytest.mark.covers("B052", "B053")
def test_b052_no_flipped_bit_changes_a_voxel_unseen(tmp_path: Path) -> None:
    content = content_of()
    whole = gzip.compress(content, mtime=0)
    path = tmp_path / "image.nii.gz"
    codes = set()
    rng = np.random.default_rng(5)
    for position in rng.choice(8 * (len(whole) - 10), 300, replace=False) + 80:  # beyond the gzip header
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        if inflated(bytes(damaged[10:-8])) == content and damaged[-8:] == whole[-8:]:
            np.testing.assert_array_equal(read_image(path).array, VOXELS)  # a bit that fills up the last byte
        else:
            codes.add(refusal(path).code)

    assert {"B052", "B053"} <= codes


@pytest.mark.covers("B053")
@pytest.mark.parametrize("trailing", [8, 4])
def test_b053_wrong_checksum_or_length(tmp_path: Path, trailing: int) -> None:
    whole = bytearray(gzip.compress(content_of()))
    whole[-trailing] ^= 1
    path = tmp_path / "image.nii.gz"
    path.write_bytes(whole)

    assert refusal(path).code == "B053"


@pytest.mark.covers("B054")
@pytest.mark.parametrize("read", [read_image, read_label])
def test_b054_bytes_after_the_image_are_counted_and_left_alone(tmp_path: Path, read: Any) -> None:
    content = content_of(LABELS)
    whole = gzip.compress(content)
    path, plain = tmp_path / "image.nii.gz", tmp_path / "image.nii"
    for after, count in ((b"garbage", 7), (bytes(300_000), 300_000), (whole, len(whole)), (whole[:-9], len(whole) - 9)):
        path.write_bytes(whole + after)

        volume = read(path)

        np.testing.assert_array_equal(volume.array, LABELS)
        assert volume.notes == (("B054", f"{count} bytes after the image"),)
        assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(gzip.compress(content + b"123") + b"4567")
    assert read(path).notes == (("B054", "7 bytes after the image"),)
    plain.write_bytes(content + bytes(300_000))
    assert read(plain).notes == (("B054", "300000 bytes after the image"),)
    assert read(plain).sha256 == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_the_empty_member_at_the_end_of_a_bgzip_file_says_nothing(tmp_path: Path) -> None:
    content = content_of()
    end = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]) + end)

    assert read_image(path).notes == ()


@pytest.mark.covers("B063")
def test_b063_a_stream_that_goes_on_after_the_image_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti_voxels, "MAX_REST", 1 << 20)
    content = content_of()
    endless = bytes(3 << 20)
    read: list[int] = []
    finish = Source.finish

    def counted(source: Source, limit: int) -> int:
        read.append(finish(source, limit))
        return read[-1]

    monkeypatch.setattr(Source, "finish", counted)
    for path in (
        saved(tmp_path, content + endless),
        saved(tmp_path, content + endless, "image.nii"),
        tmp_path / "after.nii.gz",
    ):
        if not path.exists():
            path.write_bytes(gzip.compress(content) + endless)
        assert refusal(path).code == "B063"
        assert 1 << 20 < read[-1] <= 2 << 20


@pytest.mark.covers("B064")
def test_b064_voxels_far_behind_the_header_are_not_looked_for(tmp_path: Path) -> None:
    far = 1 << 27
    content = content_of(edit=setting("vox_offset", far))
    path = saved(tmp_path, content)
    path.write_bytes(path.read_bytes() + np.random.default_rng(0).bytes(far // 1000))  # so that it might be there

    assert refusal(path).code == "B064"


@pytest.mark.covers("B092")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_b092_the_size_of_an_extension(tmp_path: Path, kind: Any, order: str) -> None:
    size = kind.header_class.sizeof_hdr

    def with_extension(claimed: int) -> Path:
        content = content_of(kind=kind, order=order, edit=setting("vox_offset", size + 4 + 32))
        extension = np.array([claimed, 6], f"{order}i4").tobytes() + bytes(24)
        return saved(tmp_path, content[:size] + b"\1\0\0\0" + extension + content[size + 4 :])

    assert read_image(with_extension(32)).notes == (("B091", "1 pieces of text"),)
    for claimed in (0, -16, 7, 33, 2**31 - 1):
        error = refusal(with_extension(claimed))
        assert (error.code, error.found) == ("B092", f"a header extension of {claimed} bytes")


@pytest.mark.covers("B091")
def test_b091_text_is_counted_and_never_shown(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["descrip"], header["aux_file"], header["intent_name"] = b"DOE^JANE", b"  ", b"1970-01-01"

    assert read_image(saved(tmp_path, content_of(edit=edit))).notes == (("B091", "2 pieces of text"),)


@pytest.mark.covers("B058")
@pytest.mark.parametrize("name", ["image.hdr", "IMAGE.IMG", "image.hdr.gz", "image.img.gz"])
@pytest.mark.parametrize("read", [read_image, read_label, read_header])
def test_b058_half_of_a_pair_by_its_name(tmp_path: Path, name: str, read: Any) -> None:
    assert refusal(saved(tmp_path, content_of(), name), read).code == "B058"


@pytest.mark.covers("B059")
@pytest.mark.parametrize(("kind", "order"), [(nib.Nifti1Image, ">"), (nib.Nifti2Image, "<"), (nib.Nifti2Image, ">")])
def test_b059_other_versions_and_byte_orders_equal_the_plain_twin(tmp_path: Path, kind: Any, order: str) -> None:
    twin = read_image(saved(tmp_path, content_of(), "twin.nii.gz"))

    volume = read_image(saved(tmp_path, content_of(kind=kind, order=order)))

    assert volume.array.tobytes() == twin.array.tobytes()
    np.testing.assert_allclose(volume.grid.affine, twin.grid.affine, atol=1e-6)


@pytest.mark.covers("B055")
def test_b055_content_against_the_name(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.nii.gz", tmp_path / "packed.nii"
    plain.write_bytes(content_of())
    packed.write_bytes(gzip.compress(content_of()))

    assert refusal(plain).found == "no gzip stream"
    assert refusal(packed).found == "a gzip stream"
    assert refusal(plain).code == refusal(packed).code == "B055"


@pytest.mark.covers("B056")
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_b056_fewer_bytes_than_the_header_says(tmp_path: Path, name: str) -> None:
    error = refusal(saved(tmp_path, content_of()[:-1], name))

    assert error.code == "B056"
    assert refusal(saved(tmp_path, content_of()[:300], name)).code in ("B050", "B056")


@pytest.mark.covers("B032", "B035", "B036", "B037", "B041")
def test_file_system_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")

    assert refusal(tmp_path / "nothing.nii.gz").code == "B032"
    assert refusal(tmp_path / "folder.nii.gz").code == "B036"
    assert refusal(tmp_path / "pipe.nii.gz").code == "B036"
    assert refusal(tmp_path / "loop.nii.gz").code == "B035"
    assert refusal(tmp_path / ("n" * 300 + ".nii.gz")).code == "B041"

    path = saved(tmp_path, content_of())

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "stat", refuse)
    assert refusal(path).code == "B037"
    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(WorkError, match="Input/output error"):
        read_image(path)
