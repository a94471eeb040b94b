"""Promise 3: one flipped bit in a compressed image that changes a voxel is always found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medmtl.data.formats.nifti import ImageError, read_image
from medmtl.rng import generator
from tests.data.formats.nifti_files import VOXELS, content_of
from tests.reliability.mutation import flipped

SEED = 1_620
SHORT, LONG = 60, 1_000
SMOOTH = np.add.outer(np.add.outer(np.arange(12), np.arange(11)), np.arange(10))
# noise is stored nearly as it is, a smooth image mostly as references to what came before
CONTENTS = (
    (VOXELS, 6),
    (SMOOTH.astype(np.uint8), 9),
    (np.sin(SMOOTH).astype(np.float32), 1),
    (np.repeat(SMOOTH.astype(np.int16), 3, axis=0), 6),
)


def flip_bits(folder: Path, count: int) -> None:
    packed = [gzip.compress(content_of(array), level, mtime=0) for array, level in CONTENTS]
    path = folder / "image.nii.gz"
    sound = []
    for data in packed:
        path.write_bytes(data)
        sound.append(read_image(path))
    refused = unseen = 0
    for number in range(count):
        rng = generator(SEED, "flip", number)
        chosen = int(rng.integers(len(packed)))
        position, bit = int(rng.integers(len(packed[chosen]))), int(rng.integers(8))
        path.write_bytes(flipped(packed[chosen], position, bit))
        try:
            read = read_image(path)
        except ImageError:  # of any rule: damage that reaches the header is met there first
            refused += 1
            unseen += changed_unseen(path, sound[chosen].array)
            continue
        where = f"flip {number} of seed {SEED}: image {chosen}, byte {position}, bit {bit}"
        assert np.array_equal(read.array, sound[chosen].array), where
        assert np.array_equal(read.grid.affine, sound[chosen].grid.affine), where
    # what is accepted are flips in fields of the gzip header that say nothing about the voxels
    assert 0.9 * count < refused <= count
    assert unseen > count / 10, "a common reader would have noticed; these flips prove little"


def changed_unseen(path: Path, sound: np.ndarray[Any, Any]) -> bool:
    """Whether nibabel loads the file without a word and gives other voxels."""
    try:
        image = nib.load(path)
        assert isinstance(image, nib.Nifti1Image)
        return not np.array_equal(np.asarray(image.dataobj).astype(np.float32), sound)
    except Exception:
        return False


@pytest.mark.covers("B052", "P03")
def test_sixty_flipped_bits(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    record_property("seed", SEED)
    flip_bits(tmp_path, SHORT)


@pytest.mark.slow
@pytest.mark.covers("B052", "P03")
def test_a_thousand_flipped_bits(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    record_property("seed", SEED)
    flip_bits(tmp_path, LONG)
