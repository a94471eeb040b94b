from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmtl.errors import InputError, MachineError
from medmtl.planning import Plan
from tests.planning.cohorts import GPU, LARGE, SMALL, budget_of, configured, fingerprint, planned


class TestShape:
    def test_it_holds_the_largest_case_rounded_up_to_the_divisor(self, small: Plan) -> None:
        # 33 x 50 x 30 at most; halved to 4.1 x 6.3 x 7.5, so by 8 x 8 x 4
        assert small.view == "case"
        assert small.shape == (40, 56, 32)
        assert small.network.cumulative_strides()[-1] == (8, 8, 4)

    @pytest.mark.covers("B140")
    def test_a_set_shape_must_fit_the_network(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__shape=[33, 40, 32])
        with pytest.raises(
            InputError, match=r"plan\.shape \[33, 40, 32\].*divisible by \[8, 8, 8\].*\[40, 40, 32\]"
        ) as raised:
            planned(config, *map(fingerprint, SMALL))
        assert (raised.value.code, raised.value.exit_code) == ("B140", 2)

    @pytest.mark.covers("B140")
    @pytest.mark.parametrize("wanted", [(33, 40, 32), (31, 17, 9), (127, 95, 63), (50, 97, 12)])
    def test_the_shape_that_is_named_instead_is_one_that_fits(self, tmp_path: Path, wanted: tuple[int, ...]) -> None:
        with pytest.raises(InputError) as raised:
            planned(configured(tmp_path, plan__shape=list(wanted)), *map(fingerprint, SMALL))
        nearest = json.loads(str(raised.value).partition("nearest: ")[2])
        assert planned(configured(tmp_path, plan__shape=nearest), *map(fingerprint, SMALL)).shape == tuple(nearest)

    def test_a_patch_keeps_two_voxels_at_the_deepest_stage_whatever_a_cpu_has_time_for(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__batch=12, plan__memory_gb=20, tasks__grade__evidence="anywhere")
        plan = planned(config, fingerprint((128, 128, 128)))
        divisor = plan.network.divisor
        assert (plan.view, plan.batch, divisor) == ("patch", 12, (32, 32, 32))
        assert sorted(plan.shape) == [32, 32, 64]
        assert plan.reasons["shape"].endswith("no shorter patch has two voxels at the network's deepest stage")

    @pytest.mark.covers("B089")
    def test_memory_for_a_single_voxel_at_the_deepest_stage_is_too_little(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__batch=12, tasks__grade__evidence="anywhere")
        budget = replace(budget_of(planned(config, fingerprint((128, 128, 128)))), varied_axes=0)
        little = (budget.need((32, 32, 32), 12) + 1) / 1e9
        with pytest.raises(MachineError, match=r"the smallest, 12 of \[32, 32, 64\] voxels"):
            planned(
                configured(tmp_path, plan__batch=12, plan__memory_gb=little, tasks__grade__evidence="anywhere"),
                fingerprint((128, 128, 128)),
            )

    @pytest.mark.covers("B140")
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({}, "set fewer halvings in plan.strides and plan.kernels"),
            ({"plan__shape": [32, 32, 32]}, "set a larger plan.shape or fewer halvings in plan.strides"),
        ],
    )
    def test_strides_leave_two_voxels_at_the_deepest_stage(
        self, tmp_path: Path, overrides: dict[str, Any], message: str
    ) -> None:
        halved = {"plan__strides": [[1] * 3, *[[2] * 3] * 5], "plan__kernels": [[3] * 3] * 6}
        with pytest.raises(InputError, match=rf"a sample of \[32, 32, 32\] voxels.*{message}") as raised:
            planned(configured(tmp_path, **halved, **overrides), fingerprint((32, 32, 24)))
        assert (raised.value.code, raised.value.exit_code) == ("B140", 2)
        with pytest.raises(InputError, match=r"nearest: \[64, 32, 32\]"):
            planned(configured(tmp_path, **halved, plan__shape=[30, 30, 30]), fingerprint((32, 32, 24)))

    @pytest.mark.covers("B140")
    def test_a_spacing_at_which_a_case_is_one_voxel_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"of \[1, 1, 1\] voxels.*set a finer plan.spacing"):
            planned(configured(tmp_path, plan__spacing=[90, 90, 90]), *map(fingerprint, SMALL))

    def test_a_case_that_must_be_seen_whole_and_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=1.2, views__kind="one")
        with pytest.raises(InputError) as raised:
            planned(config, *map(fingerprint, LARGE))
        for name in ("grade", "plan.memory_gb", "plan.spacing", "evidence: anywhere", "views.kind"):
            assert name in str(raised.value)

    def test_evidence_anywhere_allows_patches(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=1.16, tasks__grade__evidence="anywhere")
        plan = planned(config, *map(fingerprint, LARGE))
        assert plan.view == "patch"
        assert max(plan.shape) < 160
        assert all(n % d == 0 for n, d in zip(plan.shape, plan.network.cumulative_strides()[-1], strict=True))
        assert plan.memory_bytes <= 1.16e9
        assert plan.batch == 2

    @pytest.mark.covers("B089")
    def test_where_no_patch_fits_the_machine_is_at_fault(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=0.5, tasks__grade__evidence="anywhere")
        with pytest.raises(MachineError, match=r"plan\.memory_gb 0\.5.*plan\.width") as raised:
            planned(config, *map(fingerprint, LARGE))
        assert (raised.value.code, raised.value.exit_code) == ("B089", 3)

    def test_a_set_batch_of_patches_is_kept_and_the_patch_shortened(self, tmp_path: Path) -> None:
        config = configured(tmp_path, plan__memory_gb=1.3, plan__batch=4, tasks__grade__evidence="anywhere")
        plan = planned(config, *map(fingerprint, LARGE))
        assert (plan.view, plan.batch) == ("patch", 4)
        assert plan.memory_bytes <= 1.3e9

    @pytest.mark.covers("B088")
    def test_a_case_smaller_than_the_sample_is_padded_and_that_is_said(self, small: Plan) -> None:
        assert small.reasons["padding"].startswith("2 of 2 cases are smaller than a sample")
        assert "around them is 0" in small.reasons["padding"]

    @pytest.mark.covers("B088")
    def test_where_every_case_fills_the_sample_nothing_is_said(self, tmp_path: Path) -> None:
        plan = planned(configured(tmp_path), fingerprint((40, 56, 32)))
        assert plan.shape == (40, 56, 32)
        assert "padding" not in plan.reasons

    def test_a_set_shape_that_cuts_whole_cases_says_so(self, tmp_path: Path) -> None:
        plan = planned(configured(tmp_path, plan__shape=[32, 32, 32], views__kind="one"), *map(fingerprint, SMALL))
        assert (plan.view, plan.shape) == ("case", (32, 32, 32))
        assert plan.reasons["shape"] == (
            "set in the configuration; 2 of 2 cases are larger, and training sees their centre only"
        )

    @pytest.mark.parametrize("size", [(7, 7, 7), (2, 3, 5)])
    def test_a_network_of_one_stage_keeps_one_decoder_level(self, tmp_path: Path, size: tuple[int, int, int]) -> None:
        plan = planned(configured(tmp_path), fingerprint(size))
        assert plan.network.strides == ((1, 1, 1),)
        assert plan.network.levels == 1


class TestBatch:
    def test_a_cpu_step_has_600_000_voxels(self, small: Plan) -> None:
        assert small.batch == 600_000 // (40 * 56 * 32) == 8

    def test_a_gpu_step_has_sixteen_samples(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path), *map(fingerprint, SMALL), device=GPU).batch == 16

    def test_it_is_no_larger_than_the_training_fold(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path), *map(fingerprint, SMALL), training_cases=5).batch == 5

    def test_it_is_the_largest_that_fits_the_memory(self, tmp_path: Path, small: Plan) -> None:
        # the two cases fill samples that differ along all three axes
        budget = (replace(budget_of(small), varied_axes=3).need(small.shape, 3) + 1) / 1e9
        config = configured(tmp_path, plan__memory_gb=budget)
        assert planned(config, *map(fingerprint, SMALL)).batch == 3

    def test_a_set_batch_is_taken(self, tmp_path: Path) -> None:
        assert planned(configured(tmp_path, plan__batch=3), *map(fingerprint, SMALL)).batch == 3
