"""Every way by which bytes of a file reach medmtl, each as a function of one changed part of an otherwise sound whole.

A function takes a folder that holds what :func:`furnish` put there, writes the changed bytes, and reads them as the
program does. What the reader raises is raised; what it returns is of no interest here.
"""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from medmtl import checkpoint, files
from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import check_cohort
from medmtl.data.cache import IMAGE, META, PreparedCache
from medmtl.data.case import Case
from medmtl.data.formats.nifti import read_header, read_image, read_label
from medmtl.data.preparation import prepare_case
from medmtl.data.prepared import Preparation
from medmtl.data.split import Splits
from medmtl.data.split_file import from_file
from medmtl.device import describe_device
from medmtl.errors import InputError, MedmtlError
from medmtl.inference.inputs import cases_of
from medmtl.planning import Plan
from medmtl.run_folder import RunFolder
from medmtl.training.start import make_ready, plan_fold
from tests.data.formats.nifti_files import LABELS, VOXELS, content_of

CONFIG = b"""\
schema: 1
cohort: {table: cohort.csv, case: id, patient: person, channels: {t1: t1}, site: site, missing: ["", NA]}
tasks:
  organ: {kind: segmentation, column: organ, labels: {rim: 1, core: 2, rest: 3}}
  grade: {kind: classification, column: grade, classes: [low, high]}
  size:  {kind: regression, column: size, range: [0, 100], unit: ml}
network:   {kind: unet}
sharing:   {kind: hard}
weighting: {kind: fixed, weights: {organ: 1.0, grade: 0.5, size: 1e-1}}
augmentation: {flips: [x, y]}
plan:      {memory_gb: 8, batch: 2}
split:     {folds: 2, seed: 3, test: 0.0}
training:  {steps: 20, lr: 1e-3, checkpoint_every: 10}
"""
BOXES_CONFIG = b"""\
schema: 1
cohort: {table: changed.csv, case: id, patient: person, channels: {t1: t1}}
tasks: {nodules: {kind: detection, column: nodules, boxes: ras}}
split: {folds: 2}
training: {steps: 20}
"""
CASES = 4
PREPARATION = Preparation((1.0, 1.0, 2.0), ("t1",), {"organ": "organ"})

Feed = Callable[[Path, bytes], Any]


def table() -> bytes:
    """A sound table of four cases."""
    rows = [f"c{i},p{i},A,t1_{i}.nii.gz,organ.nii.gz,{('low', 'high')[i % 2]},{12.5 * i}" for i in range(CASES)]
    return "\n".join(("id,person,site,t1,organ,grade,size", *rows, "")).encode()


def boxes() -> bytes:
    """A sound table of boxes of these cases, whose scans reach from x -8 to 4, y -4.4 to -1.2 and z 4.4 to 10.6."""
    rows = [f"c{i},-3.5,-3,{6 + i},2" for i in range(CASES)]
    return "\n".join(("case_id,x_mm,y_mm,z_mm,diameter_mm", *rows, "c1,1,-2.5,8,2.5", "")).encode()


def furnish(folder: Path) -> None:
    """Write a sound cohort with its configuration, a checkpoint, a cache entry, a plan and splits."""
    (folder / "cohort.csv").write_bytes(table())
    (folder / "config.yaml").write_bytes(CONFIG)
    for index in range(CASES):
        (folder / f"t1_{index}.nii.gz").write_bytes(gzip.compress(content_of(VOXELS + index), 1, mtime=0))
    (folder / "organ.nii.gz").write_bytes(gzip.compress(content_of(LABELS), 1, mtime=0))
    tensors = {"model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, "optimiser": {"w.exp_avg": _four()}}
    checkpoint.save(folder / "checkpoints", 7, tensors, {"step": 7, "groups": [{"lr": 1e-3}]})
    PreparedCache(folder / "cache", PREPARATION).ensure([case(folder)], 1)


def _four() -> torch.Tensor:
    return torch.zeros(4)


def case(folder: Path) -> Case:
    """The case whose prepared form lies in the cache."""
    return Case("c0", "p0", None, 2, {"t1": folder / "t1_0.nii.gz"}, files={"organ": folder / "organ.nii.gz"})


def plan_and_splits(folder: Path) -> tuple[Any, Any]:
    """What a run of the cohort would hold as ``plan.json`` and ``splits.json``."""
    ready = make_ready(configuration.load(folder / "config.yaml"))
    return plan_fold(ready, 0, describe_device("cpu")).to_json(), ready.splits.to_json()


def read_config(folder: Path, data: bytes) -> None:
    (folder / "changed.yaml").write_bytes(data)
    build_tasks(configuration.load(folder / "changed.yaml"))


def read_set(folder: Path, data: bytes) -> None:
    key, value = configuration.parse_override(data.decode("utf-8", "surrogateescape"))
    configuration.load(folder / "config.yaml", {key: value})


def read_table(folder: Path, data: bytes) -> None:
    """As ``check`` reads it, and as ``predict`` does."""
    (folder / "changed.csv").write_bytes(data)
    config = configuration.load(folder / "config.yaml", {"cohort.table": str(folder / "changed.csv")})
    found = check_cohort(config, build_tasks(config))
    for finding in found.findings:
        finding.sentence()
    cases_of([str(folder / "changed.csv")], config, ("t1",))


def read_boxes(folder: Path, data: bytes) -> None:
    """A changed table of boxes, as ``check`` reads it and, where that finds nothing, as the preparation does."""
    (folder / "changed_boxes.csv").write_bytes(data)
    rows = [f"c{i},p{i},t1_{i}.nii.gz,changed_boxes.csv" for i in range(CASES)]
    (folder / "changed.csv").write_text("\n".join(("id,person,t1,nodules", *rows, "")))
    (folder / "changed.yaml").write_bytes(BOXES_CONFIG)
    config = configuration.load(folder / "changed.yaml")
    found = check_cohort(config, build_tasks(config))
    for finding in found.findings:
        finding.sentence()
    found.refuse()
    for held in found.cohort.cases:
        prepare_case(held, Preparation((1.0, 1.0, 2.0), ("t1",), {"nodules": "nodules"}, boxes={"nodules": "ras"}))


def read_plain_nifti(folder: Path, data: bytes) -> None:
    _read_nifti(folder / "changed.nii", data)


def read_packed_nifti(folder: Path, data: bytes) -> None:
    """A sound gzip stream around changed bytes."""
    _read_nifti(folder / "changed.nii.gz", gzip.compress(data, 1, mtime=0))


def read_stream(folder: Path, data: bytes) -> None:
    """A changed gzip stream."""
    _read_nifti(folder / "changed.nii.gz", data)


def _read_nifti(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(InputError):
        read_header(path)
    with suppress(InputError):
        read_label(path)
    read_image(path)


def read_plan(folder: Path, data: bytes) -> None:
    Plan.from_json(files.parse_json(data, "plan.json"))


def read_splits(folder: Path, data: bytes) -> None:
    Splits.from_json(files.parse_json(data, "splits.json"))


def read_folds(folder: Path, data: bytes) -> None:
    """nnU-Net's list of folds."""
    (folder / "splits_final.json").write_bytes(data)
    cases = [Case(f"c{i}", f"p{i}", None, i + 2, {}) for i in range(CASES)]
    from_file(folder / "splits_final.json", cases)


def read_run(folder: Path, data: bytes) -> None:
    """A changed manifest and log in a run folder."""
    run = RunFolder(folder)
    run.manifest.write_bytes(data)
    run.log_file.write_bytes(data)
    run.read_log()
    run.load_manifest()


def read_tensors(folder: Path, data: bytes) -> None:
    """Changed tensors under a commit record that vouches for them."""
    _read_checkpoint(folder, "model.safetensors", data)


def read_state(folder: Path, data: bytes) -> None:
    """Changed state under a commit record that vouches for it."""
    _read_checkpoint(folder, "state.json", data)


def read_commit(folder: Path, data: bytes) -> None:
    """A changed commit record."""
    _read_checkpoint(folder, "commit.json", data)


def _read_checkpoint(folder: Path, name: str, data: bytes) -> None:
    target = folder / "changed_checkpoints"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "checkpoints", target)
    step = target / "step-000007"
    (step / name).write_bytes(data)
    if name != "commit.json":
        record = json.loads((step / "commit.json").read_text())
        record["files"][name] = {"bytes": len(data), "sha256": files.sha256_bytes(data)}
        (step / "commit.json").write_bytes(files.json_bytes(record))
    checkpoint.load(target)


def read_cache_meta(folder: Path, data: bytes) -> None:
    """Changed metadata of a cache entry; where they are JSON still, under a hash that vouches for them."""
    try:
        content = json.loads(data.decode())
        data = files.json_bytes({"content": content, "sha256": files.sha256_bytes(files.json_bytes(content))})
    except (ValueError, RecursionError):
        pass
    _read_cache(folder, META, data)


def read_cache_array(folder: Path, data: bytes) -> None:
    """A changed array of a cache entry, under a hash that vouches for it."""
    entry = next((folder / "cache").iterdir())
    content = json.loads((entry / META).read_text())["content"]
    content["files"][IMAGE] = files.sha256_bytes(data)
    meta = files.json_bytes({"content": content, "sha256": files.sha256_bytes(files.json_bytes(content))})
    _read_cache(folder, IMAGE, data, meta)


def _read_cache(folder: Path, name: str, data: bytes, meta: bytes | None = None) -> None:
    target = folder / "changed_cache"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "cache", target)
    entry = next(target.iterdir())
    (entry / name).write_bytes(data)
    if meta is not None:
        (entry / META).write_bytes(meta)
    PreparedCache(target, PREPARATION).get(case(folder)).image_CDHW.tobytes()


def read_run_config(folder: Path, data: bytes) -> None:
    """A changed configuration, plan and splits in a run folder."""
    run = RunFolder(folder / "changed_run")
    run.path.mkdir(exist_ok=True)
    for file in (run.config, run.plan, run.splits, run.manifest):
        file.write_bytes(data)
    run = RunFolder.open(run.path)
    with suppress(MedmtlError):
        run.load_plan()
    with suppress(MedmtlError):
        run.load_splits()
    run.load_config()


def read_activations(folder: Path, data: bytes) -> None:
    """Changed answers of a network, from which a report would be written."""
    (folder / "activations.json").write_bytes(data)
    files.read_json(folder / "activations.json", limit_bytes=1 << 28)
