from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medmtl import api
from medmtl.build import build_tasks
from medmtl.config import Config, load
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.volume import Grid
from medmtl.device import Device
from medmtl.errors import ArtefactError, InputError, MachineError
from medmtl.networks.shape import pooling_plan
from medmtl.planning import Plan, TrainingFacts, make_plan, with_statistics
from medmtl.planning.memory import memory_bytes
from medmtl.training.start import make_ready, start_run

CPU = Device("cpu", bf16=False, cores=2)
GPU = Device("cuda", bf16=True, cores=8)
TEXT = """
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: patient_id, channels: {t1: image}}
tasks:
  lesion: {kind: segmentation, column: mask, labels: {core: 1}}
  grade: {kind: classification, column: grade, classes: [low, high]}
training: {steps: 10}
"""
SMALL = ((33, 40, 30), (28, 50, 20))
LARGE = ((160, 160, 160),)


def configured(folder: Path, **overrides: Any) -> Config:
    """The configuration above; ``plan__batch=2`` stands for ``plan.batch``."""
    path = folder / "config.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return load(path, {key.replace("__", "."): value for key, value in overrides.items()})


def fingerprint(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Fingerprint:
    return Fingerprint(Grid(shape, np.diag([*spacing, 1.0])), {}, {})


def planned(config: Config, *prints: Fingerprint, device: Device = CPU, training_cases: int = 100) -> Plan:
    return make_plan(config, build_tasks(config), prints, training_cases, device)


@pytest.fixture
def small(tmp_path: Path) -> Plan:
    return planned(configured(tmp_path), *map(fingerprint, SMALL))


class TestSpacing:
    def test_it_is_the_median_per_axis(self, tmp_path: Path) -> None:
        spacings = ((1.0, 0.8, 2.0), (1.2, 0.9, 3.0), (1.1, 0.7, 1.0))
        plan = planned(configured(tmp_path), *(fingerprint((40, 40, 40), spacing) for spacing in spacings))
        assert plan.preparation.spacing == (1.1, 0.8, 2.0)

    def test_few_thick_slices_take_the_tenth_percentile(self, tmp_path: Path) -> None:
        spacings = ((1.0, 1.0, 10.0), (1.0, 1.0, 10.0), (1.0, 1.0, 5.0))
        plan = planned(configured(tmp_path), *(fingerprint((120, 120, 12), spacing) for spacing in spacings))
        assert plan.preparation.spacing == (1.0, 1.0, 6.0)  # a fifth of the way from 5 to 10
        assert "10th percentile" in plan.reasons["spacing"]

    def test_many_thick_slices_keep_the_median(self, tmp_path: Path) -> None:
        spacings = ((1.0, 1.0, 10.0), (1.0, 1.0, 10.0), (1.0, 1.0, 5.0))
        plan = planned(configured(tmp_path), *(fingerprint((40, 40, 40), spacing) for spacing in spacings))
        assert plan.preparation.spacing == (1.0, 1.0, 10.0)

    def test_a_set_spacing_is_taken(self, tmp_path: Path) -> None:
        plan = planned(configured(tmp_path, plan__spacing=[2, 2, 2]), fingerprint((64, 64, 64)))
        assert plan.preparation.spacing == (2.0, 2.0, 2.0)
        assert plan.shape == (32, 32, 32)
        assert plan.reasons["spacing"] == "set in the configuration"


class TestShape:
    def test_it_holds_the_largest_case_rounded_up_to_the_divisor(self, small: Plan) -> None:
        # 33 x 50 x 30 at most; halved to 4.1 x 6.3 x 7.5, so by 8 x 8 x 4
        assert small.view == "case"
        assert small.shape == (40, 56, 32)
        assert small.network.cumulative_strides()[-1] == (8, 8, 4)

    def test_a_set_shape_must_fit_the_network(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__shape=[33, 40, 32])
        with pytest.raises(InputError, match=r"plan\.shape \[33, 40, 32\].*divisible by \[8, 8, 8\].*\[40, 40, 32\]"):
            planned(config, *map(fingerprint, SMALL))

    def test_a_case_that_must_be_seen_whole_and_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=1.2)
        with pytest.raises(InputError) as raised:
            planned(config, *map(fingerprint, LARGE))
        for name in ("grade", "plan.memory_gb", "plan.spacing", "evidence: anywhere"):
            assert name in str(raised.value)

    def test_evidence_anywhere_allows_patches(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=1.2, tasks__grade__evidence="anywhere")
        plan = planned(config, *map(fingerprint, LARGE))
        assert plan.view == "patch"
        assert max(plan.shape) < 160
        assert all(n % d == 0 for n, d in zip(plan.shape, plan.network.cumulative_strides()[-1], strict=True))
        assert plan.memory_bytes <= 1.2e9
        assert plan.batch == 2

    def test_where_no_patch_fits_the_machine_is_at_fault(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=0.5, tasks__grade__evidence="anywhere")
        with pytest.raises(MachineError, match=r"plan\.memory_gb 0\.5.*plan\.width"):
            planned(config, *map(fingerprint, LARGE))


class TestBatch:
    def test_a_cpu_step_has_600_000_voxels(self, small: Plan) -> None:
        assert small.batch == 600_000 // (40 * 56 * 32) == 8

    def test_a_gpu_step_has_sixteen_samples(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path), *map(fingerprint, SMALL), device=GPU).batch == 16

    def test_it_is_no_larger_than_the_training_fold(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path), *map(fingerprint, SMALL), training_cases=5).batch == 5

    def test_it_is_the_largest_that_fits_the_memory(self, tmp_path: Path, small: Plan) -> None:
        budget = (memory_bytes(small.network, small.shape, 3, "fp32", CPU) + 1) / 1e9
        config = configured(tmp_path, plan__memory_gb=budget)
        assert planned(config, *map(fingerprint, SMALL)).batch == 3

    def test_a_set_batch_is_taken(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path, plan__batch=3), *map(fingerprint, SMALL)).batch == 3


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (CPU, "fp32"),
        (replace(CPU, bf16=True), "bf16"),
        (GPU, "bf16"),
        (replace(GPU, bf16=False), "fp16"),
    ],
)
def test_precision_follows_the_device(tmp_path: Path, device: Device, precision: str) -> None:
    plan = planned(configured(tmp_path), *map(fingerprint, SMALL), device=device)
    assert (plan.precision, plan.device) == (precision, device.kind)


def test_a_set_precision_is_taken(tmp_path: Path) -> None:
    config = configured(tmp_path, plan__precision="fp32")
    assert planned(config, *map(fingerprint, SMALL), device=GPU).precision == "fp32"


def test_memory_grows_with_batch_shape_and_precision(small: Plan) -> None:
    def need(shape: tuple[int, int, int] = (32, 32, 32), batch: int = 2, precision: str = "bf16") -> int:
        return memory_bytes(small.network, shape, batch, precision, CPU)

    assert need() < need(batch=4) < need(batch=8)
    assert need() < need(shape=(64, 32, 32)) == need(shape=(32, 32, 64))
    assert need() < need(precision="fp32")
    # all but what is there before the first sample grows in proportion
    assert need(batch=8) - need(batch=4) == pytest.approx(2 * (need(batch=4) - need(batch=2)), abs=4)
    assert need(shape=(64, 32, 32), batch=2) == pytest.approx(need(batch=4), abs=4)


class TestStorage:
    def test_a_plan_survives_the_file(self, small: Plan, tmp_path: Path) -> None:
        config = configured(tmp_path)
        plan = with_statistics(small, config, build_tasks(config), facts(scan(), scan()))
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan

    @pytest.mark.parametrize("place", [(), ("network",), ("preparation",), ("intensities", 0)])
    def test_unknown_keys_are_refused(self, small: Plan, tmp_path: Path, place: tuple[Any, ...]) -> None:
        config = configured(tmp_path)
        plan = with_statistics(small, config, build_tasks(config), facts(scan()))
        data = json.loads(json.dumps(plan.to_json()))
        section = data
        for key in place:
            section = section[key]
        section["colour"] = 1
        with pytest.raises(ArtefactError, match=r"plan\.json.*colour"):
            Plan.from_json(data)

    def test_a_missing_key_is_refused(self, small: Plan) -> None:
        data = json.loads(json.dumps(small.to_json()))
        del data["batch"]
        with pytest.raises(ArtefactError, match="batch"):
            Plan.from_json(data)


@dataclass(frozen=True)
class Scan:
    """What planning reads of a prepared case."""

    native: Grid
    statistics: tuple[Mapping[str, float], ...]


def scan(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), **changed: float) -> Scan:
    values = {"min": 0.0, "mean": 100.0, "std": 10.0, "p005": 5.0, "p995": 200.0, "nonzero_fraction": 0.9, **changed}
    return Scan(Grid((8, 8, 8), np.diag([*spacing, 1.0])), (values,))


def facts(*scans: Scan) -> TrainingFacts:
    mask = {"voxels": 512, "counts": {1: 20}}
    return TrainingFacts(scans, {"lesion": [mask] * 2, "grade": ["low", "low", "high"]})


class TestStatistics:
    def of(self, folder: Path, plan: Plan, *scans: Scan, **overrides: Any) -> Plan:
        config = configured(folder, **overrides)
        return with_statistics(plan, config, build_tasks(config), facts(*scans))

    def test_hounsfield_units_are_known_by_their_minimum(self, small: Plan, tmp_path: Path) -> None:
        plan = self.of(
            tmp_path,
            small,
            scan(min=-1024.0, mean=10.0, std=3.0, p005=-900.0, p995=300.0),
            scan(min=-1000.0, mean=30.0, std=4.0, p005=-950.0, p995=500.0),
        )
        (intensity,) = plan.intensities
        assert intensity.kind == "ct"
        assert intensity.clip == (-925.0, 400.0)
        assert intensity.mean == 20.0
        assert intensity.std == pytest.approx(12.5**0.5)

    @pytest.mark.parametrize(("fraction", "kind"), [(0.95, "zscore"), (0.6, "zscore_nonzero")])
    def test_a_masked_scan_is_known_by_its_zeros(self, small: Plan, tmp_path: Path, fraction: float, kind: str) -> None:
        (intensity,) = self.of(tmp_path, small, scan(nonzero_fraction=fraction)).intensities
        assert (intensity.kind, intensity.mean, intensity.clip) == (kind, None, None)

    def test_a_set_normalisation_is_taken(self, small: Plan, tmp_path: Path) -> None:
        (intensity,) = self.of(tmp_path, small, scan(min=-1000.0), plan__normalisation={"t1": "none"}).intensities
        assert intensity.kind == "none"

    def test_the_training_range_spans_the_training_cases(self, small: Plan, tmp_path: Path) -> None:
        plan = self.of(tmp_path, small, scan((1.0, 3.0, 2.0), p995=150.0), scan((2.0, 2.0, 2.0), p995=250.0))
        # voxel sizes are sorted, so that the order of a file's axes does not matter
        assert plan.training_range == {
            "spacing_0": (1.0, 2.0),
            "spacing_1": (2.0, 2.0),
            "spacing_2": (2.0, 3.0),
            "intensity_t1": (150.0, 250.0),
        }

    def test_tasks_learn_from_the_training_fold(self, small: Plan, tmp_path: Path) -> None:
        assert self.of(tmp_path, small, scan()).tasks["grade"]["counts"] == [2, 1]


def test_validation_cases_do_not_move_the_normalisation(tmp_path: Path) -> None:
    config = api.synth(tmp_path / "cohort", cases=12)
    resolved = load(config, {"plan.normalisation": {"image": "ct"}})
    first = start_run(make_ready(resolved), tmp_path / "first", 0, "cpu")
    fold = first.load_splits().folds[0]
    with (tmp_path / "cohort" / "cohort.csv").open(encoding="utf-8", newline="") as file:
        images = {row["case_id"]: tmp_path / "cohort" / row["image"] for row in csv.DictReader(file)}

    def brighten(case_id: str) -> None:
        image = nib.Nifti1Image.from_filename(images[case_id])
        array = np.asarray(image.dataobj) * 10
        nib.Nifti1Image(array, image.affine).to_filename(images[case_id])  # type: ignore[no-untyped-call]

    for case_id in fold.val:
        brighten(case_id)
    second = start_run(make_ready(resolved), tmp_path / "second", 0, "cpu")
    assert second.load_plan().intensities == first.load_plan().intensities
    brighten(fold.train[0])
    third = start_run(make_ready(resolved), tmp_path / "third", 0, "cpu")
    assert third.load_plan().intensities != first.load_plan().intensities


class TestPooling:
    def test_a_cube_of_fine_voxels(self) -> None:
        strides, kernels, divisor = pooling_plan((48, 64, 48), (1.0, 1.0, 1.0), 6)
        assert strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 1))
        assert kernels == ((3, 3, 3),) * 5
        assert divisor == (8, 16, 8)

    def test_thick_slices_wait_until_the_others_have_caught_up(self) -> None:
        strides, kernels, divisor = pooling_plan((192, 192, 14), (1.3, 1.3, 9.6), 6)
        assert strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 1), (2, 2, 1))
        assert kernels == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
        assert divisor == (32, 32, 2)

    def test_a_scan_too_small_to_halve_has_one_stage(self) -> None:
        assert pooling_plan((7, 7, 7), (1.0, 1.0, 1.0), 6) == (((1, 1, 1),), ((3, 3, 3),), (1, 1, 1))
