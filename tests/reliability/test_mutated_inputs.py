"""Promise 21: whatever a file holds, reading it ends in one of medmtl's own errors or in success, and soon."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from medmtl.errors import MedmtlError
from medmtl.rng import generator
from tests.data.formats.nifti_files import VOXELS, content_of
from tests.reliability import entry_points
from tests.reliability.entry_points import CONFIG, Feed, furnish, plan_and_splits, table
from tests.reliability.mutation import mutated, mutated_header, mutated_json, mutated_table, mutated_yaml

SEED = 20_260_101
SHORT, LONG = 300, 10_000
LIMIT_SECONDS = 30
FOLDS = [{"train": ["c0", "c1"], "val": ["c2"]}, {"train": ["c2", "c1"], "val": ["c0"]}]

Make = Callable[[np.random.Generator], bytes]


class Hang(BaseException):
    """Reading took too long. Not an Exception, so that no reader can take it for damage."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {LIMIT_SECONDS} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def kinds_of_input(folder: Path) -> list[tuple[int, Feed, Make]]:
    """How often in a hundred, who reads it, and how it is made."""
    plan, splits = plan_and_splits(folder)
    step = folder / "checkpoints" / "step-000007"
    entry = next((folder / "cache").iterdir())
    tensors, array = (step / "model.safetensors").read_bytes(), (entry / "image.npy").read_bytes()
    commit, state = (json.loads((step / name).read_text()) for name in ("commit.json", "state.json"))
    meta = json.loads((entry / "meta.json").read_text())["content"]
    manifest = {"fold": 0, "seed": 0, "table_sha256": "0" * 64, "files_sha256": {"a": "0" * 64}}
    manifest |= {"voxels_sha256": {"a": "0" * 64}, "patients": ["a"], "trained": {"patients": {"0": ["a"]}}}
    volume = content_of()
    packed = gzip.compress(volume, 6, mtime=0)
    floats = content_of(VOXELS.astype(np.float64))

    def header(rng: np.random.Generator) -> bytes:
        whole = volume if rng.random() < 0.5 else floats
        return mutated_header(whole[:352], rng) + whole[352:]

    def safetensors(rng: np.random.Generator) -> bytes:
        size = int.from_bytes(tensors[:8], "little")
        text = mutated_json(json.loads(tensors[8 : 8 + size]), rng)
        if rng.random() < 0.2:
            return mutated(tensors, rng)
        return len(text).to_bytes(8, "little") + text + tensors[8 + size :]

    return [
        (15, entry_points.read_config, lambda rng: mutated_yaml(CONFIG, rng)),
        (5, entry_points.read_set, lambda rng: mutated(b"training.lr=1e-3", rng)),
        (15, entry_points.read_table, lambda rng: mutated_table(table(), rng)),
        (5, entry_points.read_boxes, lambda rng: mutated_table(entry_points.boxes(), rng)),
        (8, entry_points.read_plain_nifti, header),
        (7, entry_points.read_packed_nifti, header),
        (10, entry_points.read_stream, lambda rng: mutated(packed, rng)),
        (6, entry_points.read_plan, lambda rng: mutated_json(plan, rng)),
        (5, entry_points.read_splits, lambda rng: mutated_json(splits, rng)),
        (4, entry_points.read_folds, lambda rng: mutated_json(FOLDS, rng)),
        (3, entry_points.read_run, lambda rng: mutated_json(manifest, rng)),
        (7, entry_points.read_tensors, safetensors),
        (2, entry_points.read_state, lambda rng: mutated_json(state, rng)),
        (3, entry_points.read_commit, lambda rng: mutated_json(commit, rng)),
        (3, entry_points.read_cache_meta, lambda rng: mutated_json(meta, rng)),
        (2, entry_points.read_cache_array, lambda rng: mutated(array, rng)),
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound cohort and its artefacts; working folder and home are elsewhere, and empty."""
    for name in ("inputs", "elsewhere", "home"):
        (tmp_path / name).mkdir()
    furnish(tmp_path / "inputs")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "inputs"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written_by_the_test(name: str) -> bool:
    return name.startswith("changed") or name in ("splits_final.json", "manifest.json", "log.jsonl")


def complaint(feed: Feed, folder: Path, data: bytes, said: list[str]) -> str | None:
    """What went wrong beyond an error of medmtl's own, or None."""
    try:
        with time_limit():
            feed(folder, data)
    except MedmtlError as error:
        said.append(str(error))
        if not str(error).strip():
            return "an error without a word"
    except (Exception, Hang) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def read_mutated(folder: Path, count: int) -> None:
    before = contents(folder)
    kinds = kinds_of_input(folder)
    shares = np.array([share for share, _, _ in kinds], dtype=float)
    assert shares.sum() == 100
    faults: list[str] = []
    said: list[str] = []
    for number in range(count):
        rng = generator(SEED, "mutation", number)
        _, feed, make = kinds[int(rng.choice(len(kinds), p=shares / 100))]
        fault = complaint(feed, folder, make(rng), said)
        if fault is not None:
            faults.append(f"input {number} of seed {SEED}, {feed.__name__}: {fault}")
    assert faults == []
    # the mutations bite, but not all at the first byte
    assert 0.3 * count < len(said) < count
    after = {name: data for name, data in contents(folder).items() if not written_by_the_test(name)}
    assert after == before
    assert [name for name in ("elsewhere", "home") if os.listdir(folder.parent / name)] == []


@pytest.mark.covers("P21", "P05")
def test_a_few_hundred_mutated_inputs_end_in_errors_of_our_own(
    folder: Path, record_property: Callable[[str, Any], None]
) -> None:
    record_property("seed", SEED)
    read_mutated(folder, SHORT)


@pytest.mark.slow
@pytest.mark.covers("P21", "P05")
def test_ten_thousand_mutated_inputs_end_in_errors_of_our_own(
    folder: Path, record_property: Callable[[str, Any], None]
) -> None:
    record_property("seed", SEED)
    read_mutated(folder, LONG)
