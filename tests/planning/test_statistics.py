from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medmtl import api
from medmtl.build import build_tasks
from medmtl.config import load
from medmtl.planning import CaseFacts, Plan, with_statistics
from medmtl.training.start import make_ready, start_run
from tests.planning.cohorts import configured, facts, scan


class TestStatistics:
    def of(self, folder: Path, plan: Plan, *scans: CaseFacts, **overrides: Any) -> Plan:
        config = configured(folder, **overrides)
        return with_statistics(plan, config, build_tasks(config), *facts(*scans))

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

    def test_one_odd_scan_makes_no_hounsfield_units(self, small: Plan, tmp_path: Path) -> None:
        (intensity,) = self.of(tmp_path, small, scan(min=-1024.0), scan(), scan()).intensities
        assert intensity.kind == "zscore"

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

    def test_the_air_of_a_ct_is_part_of_the_range(self, small: Plan, tmp_path: Path) -> None:
        plan = self.of(tmp_path, small, scan(min=-1024.0, p005=-1000.0), scan(min=-1024.0, p005=-900.0))
        assert plan.training_range["intensity_low_t1"] == (-1000.0, -900.0)

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
