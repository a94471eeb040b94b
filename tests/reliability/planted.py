"""A cohort of tiny volumes in which every fault stands alone in a row of its own."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.data.formats.nifti_files import AFFINE, SHAPE, Edit, content_of, setting

CONFIG = """\
schema: 1
cohort: {table: cohort.csv, case: id, patient: person, channels: {t1: t1, t2: t2}}
tasks:
  organ: {kind: segmentation, column: organ, labels: {rim: 1, core: 2}}
  grade: {kind: classification, column: grade, classes: [low, high]}
  size:  {kind: regression, column: size, range: [0, 100]}
training: {steps: 1}
"""
COLUMNS = ("id", "person", "t1", "t2", "organ", "grade", "size")
SOUND = 10

Array = npt.NDArray[Any]


@dataclass
class Row:
    """A sound row to be broken.

    Attributes:
        folder: of the cohort.
        number: counts rows; file names, ids and noise follow from it.
        cells: column -> text.
        extra: what stands after the last cell.
    """

    folder: Path
    number: int
    cells: dict[str, str] = field(default_factory=dict)
    extra: str = ""

    def file(self, column: str) -> Path:
        """The file that a column of this row names."""
        return self.folder / self.cells[column]

    def noise(self) -> Array:
        """An image that no other row has."""
        return np.random.default_rng(self.number).integers(-900, 900, SHAPE).astype(np.int16)


Break = Callable[[Row], None]


@dataclass(frozen=True)
class Fault:
    """What is planted: the rule and column that the check must name, and how it is done."""

    code: str
    column: str | None
    plant: Break


def mask() -> Array:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 1:4, 2] = 1
    array[2, 1:4, 2:4] = 2
    return array


def pack(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 6, mtime=0))


def sound_row(folder: Path, number: int) -> Row:
    row = Row(folder, number)
    row.cells = {"id": f"case{number:03}", "person": f"p{number:03}", "grade": ("low", "high")[number % 2]}
    row.cells |= {column: f"{column}_{number:03}.nii.gz" for column in ("t1", "t2", "organ")}
    row.cells["size"] = f"{number % 50 + 1}.5"
    pack(row.file("t1"), content_of(row.noise()))
    pack(row.file("t2"), content_of(row.noise()[::-1]))
    pack(row.file("organ"), content_of(mask()))
    return row


def cell(column: str, text: str) -> Break:
    return lambda row: row.cells.update({column: text})


def raw(column: str, change: Callable[[bytes], bytes]) -> Break:
    """Change the bytes of a file as they lie on the disk."""
    return lambda row: _keep(row.file(column).write_bytes(change(row.file(column).read_bytes())))


def header(column: str, edit: Edit) -> Break:
    """Write the file of a column anew, with other header fields."""
    return lambda row: pack(row.file(column), content_of(mask() if column == "organ" else row.noise(), edit=edit))


def voxels(column: str, make: Callable[[Array], Array], edit: Edit | None = None) -> Break:
    """Write the file of a column anew, with other voxels."""
    return lambda row: pack(row.file(column), content_of(make(mask() if column == "organ" else row.noise()), edit=edit))


def moved(column: str, millimetres: float) -> Break:
    """Write the file of a column anew, elsewhere in space."""
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return lambda row: pack(row.file(column), content_of(mask() if column == "organ" else row.noise(), affine))


def with_voxel(value: float, dtype: npt.DTypeLike = np.float32) -> Callable[[Array], Array]:
    def make(array: Array) -> Array:
        changed = array.astype(dtype)
        changed[1, 2, 3] = value
        return changed

    return make


def outside(row: Row) -> None:
    (row.folder.parent / "outside.nii.gz").write_bytes(row.file("t1").read_bytes())
    row.cells["t1"] = "../outside.nii.gz"


def linked(target: str) -> Break:
    def plant(row: Row) -> None:
        row.file("t1").unlink()
        row.file("t1").symlink_to(target)

    return plant


def pipe(row: Row) -> None:
    row.file("t2").unlink()
    os.mkfifo(row.file("t2"))


def folder_in_place(row: Row) -> None:
    row.file("organ").unlink()
    row.file("organ").mkdir()


def shared(row: Row) -> None:
    row.cells["t1"] = "t1_000.nii.gz"


def copied(row: Row) -> None:
    row.file("t1").write_bytes((row.folder / "t1_001.nii.gz").read_bytes())


def wide(row: Row) -> None:
    row.extra = ",more"


def _keep(written: int) -> None:
    assert written >= 0


def flip_middle(data: bytes) -> bytes:
    return data[:-6] + bytes([data[-6] ^ 16]) + data[-5:]


def wrong_shape(row: Row) -> None:
    pack(row.file("t2"), content_of(row.noise()[:-1]))


def no_rotation(image: Any) -> None:
    image["sform_code"] = 0
    image["quatern_b"], image["quatern_c"] = 0.9, 0.9


TABLE = (
    Fault("B008", None, wide),
    Fault("B016", "id", cell("id", "")),
    Fault("B016", "person", cell("person", " ")),
    Fault("B017", "id", cell("id", "case000")),
    Fault("B017", "id", cell("id", "CASE001")),
    Fault("B019", "t1", shared),
    Fault("B020", "t1", copied),
    Fault("B076", "t2", cell("t2", "")),
)
PATHS = (
    Fault("B032", "t1", cell("t1", "absent.nii.gz")),
    Fault("B032", "organ", cell("organ", "absent.nii.gz")),
    Fault("B034", "t1", outside),
    Fault("B034", "t2", cell("t2", "/dev/null")),
    Fault("B035", "t1", linked("/etc/hostname")),
    Fault("B035", "t1", linked("nothing.nii.gz")),
    Fault("B036", "t2", pipe),
    Fault("B036", "organ", folder_in_place),
    Fault("B041", "t1", cell("t1", "n" * 300 + ".nii.gz")),
)
IMAGES = (
    Fault("B050", "t1", raw("t1", lambda data: b"")),
    Fault("B050", "t2", raw("t2", lambda data: b"<!DOCTYPE html><html></html>")),
    Fault("B050", "t1", raw("t1", lambda data: b"version https://git-lfs.github.com/spec/v1\n")),
    Fault("B051", "t1", raw("t1", lambda data: data[: len(data) // 2])),
    Fault("B051", "t2", raw("t2", lambda data: data[:-4])),
    Fault("B053", "t1", raw("t1", flip_middle)),
    Fault("B055", "t1", raw("t1", gzip.decompress)),
    Fault("B057", "t1", header("t1", setting("magic", b"abc"))),
    Fault("B058", "t1", header("t1", setting("magic", b"ni1"))),
    Fault("B060", "t2", header("t2", setting("sizeof_hdr", 347))),
    Fault("B061", "t1", header("t1", setting("dim", 0, 2))),
    Fault("B062", "t1", header("t1", setting("dim", [3, 32767, 32767, 32767, 1, 1, 1, 1]))),
    Fault("B064", "t1", header("t1", setting("vox_offset", 0))),
    Fault("B065", "t2", header("t2", setting("datatype", 9999))),
    Fault("B066", "t1", header("t1", setting("datatype", 128))),
    Fault("B067", "t1", voxels("t1", with_voxel(2**24 + 1, np.int64))),
    Fault("B068", "t2", voxels("t2", with_voxel(1e300, np.float64))),
    Fault("B069", "t1", header("t1", setting("scl_slope", np.inf))),
    Fault("B070", "t1", voxels("t1", with_voxel(np.nan))),
    Fault("B071", "t2", voxels("t2", with_voxel(-np.inf))),
    Fault("B072", "t1", voxels("t1", np.zeros_like)),
    Fault("B074", "t1", header("t1", setting("dim", [4, 2, 2, 5, 6, 1, 1, 1]))),
    Fault("B075", "t1", header("t1", setting("dim", [3, 20, 6, 1, 1, 1, 1, 1]))),
    Fault("B076", "t2", wrong_shape),
    Fault("B077", "t2", moved("t2", 7)),
    Fault("B078", "t1", header("t1", setting("pixdim", 0, 1))),
    Fault("B079", "t1", header("t1", setting("xyzt_units", 3))),
    Fault("B080", "t2", header("t2", setting("pixdim", 3.0, 2))),
    Fault("B082", "t1", header("t1", setting("qoffset_x", 90))),
    Fault("B083", "t1", header("t1", no_rotation)),
)
LABELS = (
    Fault("B095", "organ", voxels("organ", lambda array: array[:, :-1])),
    Fault("B096", "organ", moved("organ", 7)),
    Fault("B097", "organ", voxels("organ", with_voxel(0.5))),
    Fault("B097", "organ", voxels("organ", with_voxel(-1, np.int16))),
    Fault("B099", "organ", header("organ", setting("scl_slope", 0.3))),
    Fault("B100", "organ", voxels("organ", with_voxel(7, np.uint8))),
    Fault("B103", "organ", voxels("organ", with_voxel(2**24 + 1, np.int64))),
    Fault("B051", "organ", raw("organ", lambda data: data[:-30])),
)
SCALARS = (
    Fault("B112", "grade", cell("grade", "High")),
    Fault("B112", "grade", cell("grade", "high ")),
    Fault("B119", "size", cell("size", "tall")),
    Fault("B119", "size", cell("size", "nan")),
    Fault("B121", "size", cell("size", "1000.25")),
)
FAULTS = (*TABLE, *PATHS, *IMAGES, *LABELS, *SCALARS)


def plant(folder: Path) -> Iterator[tuple[Fault, int]]:
    """Write the cohort into ``folder``; yields each fault with the table's row where it stands."""
    rows = [sound_row(folder, number) for number in range(SOUND + len(FAULTS))]
    for number, fault in enumerate(FAULTS, start=SOUND):
        fault.plant(rows[number])
    lines = [",".join(COLUMNS), *(",".join(row.cells[column] for column in COLUMNS) + row.extra for row in rows)]
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    # the header is row 1
    yield from zip(FAULTS, range(SOUND + 2, SOUND + 2 + len(FAULTS)), strict=True)
