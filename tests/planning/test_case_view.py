from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmtl.data.fingerprint import Fingerprint
from medmtl.device import Device
from medmtl.errors import ConfigError, InputError
from medmtl.networks.cost import Towers, parameter_count
from medmtl.planning import Plan
from medmtl.planning.case_view import lesion_diameters
from medmtl.planning.memory import PARAMETER_BYTES, PROCESS_BYTES
from tests.planning.cohorts import CPU, GPU, budget_of, configured, fingerprint, planned

SHAPE = (256, 256, 160)


def scan(diameter_mm: float | None = None) -> Fingerprint:
    """A scan too large for one view, with a lesion of a ball's volume."""
    seen = fingerprint(SHAPE)
    if diameter_mm is None:
        return seen
    voxels = round(math.pi / 6 * diameter_mm**3)
    return replace(seen, label_counts={"lesion": {0: math.prod(SHAPE) - voxels, 1: voxels}})


def of(folder: Path, *diameters: float | None, device: Device = CPU, **overrides: Any) -> Plan:
    return planned(configured(folder, **overrides), *map(scan, diameters or (None,)), device=device)


def test_the_diameter_is_that_of_a_ball_of_the_lesions_volume() -> None:
    assert lesion_diameters("lesion", [scan(10.0), scan(), scan(20.0)]) == pytest.approx([10, 20], rel=0.01)
    assert lesion_diameters("other", [scan(10.0)]) == []


def test_a_case_that_fits_is_seen_in_one_view(tmp_path: Path) -> None:
    assert planned(configured(tmp_path), fingerprint((32, 32, 32))).case_view is None


def test_large_lesions_are_seen_with_the_whole_case_at_a_coarser_spacing(tmp_path: Path) -> None:
    plan = of(tmp_path, 40.0, 60.0)
    view = plan.case_view
    assert view is not None
    assert (plan.view, view.kind, view.tasks) == ("patch", "case", ("grade",))
    assert view.preparation.spacing[0] > 1
    assert view.preparation.labels == {}
    assert math.prod(view.shape) <= 300_000
    assert all(n * s >= whole for n, s, whole in zip(view.shape, view.preparation.spacing, SHAPE, strict=True))
    assert "40 voxels" not in plan.reasons["case_view.lesions"]
    assert "voxels per axis or less in this view" in plan.reasons["case_view.lesions"]


def test_small_lesions_are_seen_in_a_window_around_them(tmp_path: Path) -> None:
    plan = of(tmp_path, *[6.0] * 5, *[12.0] * 5)
    view = plan.case_view
    assert view is not None
    assert (view.kind, view.around) == ("lesion", "lesion")
    assert view.preparation == plan.preparation
    assert all(n >= 24 and n % d == 0 for n, d in zip(view.shape, plan.network.divisor, strict=True))
    assert "a tenth of the lesions would have" in plan.reasons["case_view"]


def test_a_window_is_twice_as_wide_as_all_but_a_tenth_of_the_lesions(tmp_path: Path) -> None:
    plan = of(tmp_path, *[6.0] * 8, *[40.0] * 2, views__kind="lesion")
    assert plan.case_view is not None
    assert plan.network.divisor == (32, 32, 32)
    assert plan.case_view.shape == (96, 96, 96)


@pytest.mark.parametrize(("device", "spacing", "cases"), [(CPU, 2, 1), (CPU, 8, 2), (GPU, 2, 2), (GPU, 8, 4)])
def test_a_step_holds_as_many_whole_cases_as_cost_a_step_of_patches_and_four_at_most(
    tmp_path: Path, device: Device, spacing: int, cases: int
) -> None:
    config = configured(tmp_path, views__kind="two", views__spacing=[spacing] * 3)
    view = planned(config, scan(8.0), device=device).case_view
    assert view is not None
    assert view.batch == cases


def test_without_one_mask_to_look_for_small_lesions_are_seen_in_tiles(tmp_path: Path) -> None:
    second = {"kind": "segmentation", "column": "vessel", "labels": {"vessel": 1}}
    plan = of(tmp_path, 6.0, 8.0, tasks__vessels=second)
    view = plan.case_view
    assert view is not None
    assert (view.kind, view.shape, view.batch) == ("tiles", plan.shape, 1)
    assert view.tiles >= 2
    named = of(tmp_path, 6.0, 8.0, tasks__vessels=second, views__around="lesion").case_view
    assert named is not None
    assert (named.kind, named.around) == ("lesion", "lesion")


def test_evidence_in_the_lesion_asks_for_a_window_also_of_large_ones(tmp_path: Path) -> None:
    view = of(tmp_path, 40.0, tasks__grade__evidence="lesion").case_view
    assert view is not None
    assert view.kind == "lesion"


def test_a_whole_view_of_small_lesions_is_refused_unless_its_spacing_is_ones_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"voxels per axis or less, and 4 are wanted; set views.kind: lesion or tiles"):
        of(tmp_path, 8.0, views__kind="two")
    view = of(tmp_path, 8.0, views__kind="two", views__spacing=[4.0, 4.0, 4.0]).case_view
    assert view is not None
    assert (view.kind, view.preparation.spacing) == ("case", (4.0, 4.0, 4.0))


def test_both_views_fit_the_budget_together(tmp_path: Path) -> None:
    for kind, more in (("two", {"views__spacing": [4, 4, 4]}), ("lesion", {}), ("tiles", {})):
        plan = of(tmp_path, 8.0, views__kind=kind, plan__memory_gb=2.0, **more)
        alone = of(
            tmp_path, 8.0, views__kind="one", plan__memory_gb=2.0, plan__batch=plan.batch, plan__shape=plan.shape
        )
        assert alone.case_view is None
        assert alone.memory_bytes < plan.memory_bytes <= 2e9
        own = of(
            tmp_path, 8.0, views__kind=kind, views__share=False, plan__memory_gb=4.0, plan__shape=plan.shape, **more
        )
        both = of(tmp_path, 8.0, views__kind=kind, plan__memory_gb=4.0, plan__shape=plan.shape, **more)
        assert own.memory_bytes > both.memory_bytes


@pytest.mark.covers("B089")
def test_more_tiles_than_fit_are_refused(tmp_path: Path) -> None:
    assert of(tmp_path, 8.0, views__kind="tiles", views__tiles=8, plan__memory_gb=4.0).memory_bytes <= 4e9
    with pytest.raises(
        InputError, match=r"^\[B089\] 40 tiles of .* need [\d.]+ GB, and plan.memory_gb is 4; lower views"
    ):
        of(tmp_path, 8.0, views__kind="tiles", views__tiles=40, plan__memory_gb=4.0)


@pytest.mark.parametrize("gigabytes", [2.5, 3.0, 5.0])
def test_a_second_view_takes_no_more_than_its_share(tmp_path: Path, gigabytes: float) -> None:
    plan = of(tmp_path, 40.0, device=GPU, views__kind="two", plan__memory_gb=gigabytes)
    view = plan.case_view
    assert view is not None
    encoder = replace(budget_of(plan, outputs=0, precision=plan.precision), towers=Towers(1, 0), device=GPU)
    assert encoder.maps(view.shape, view.batch) <= gigabytes * 1e9 / 4


def test_patches_have_one_shape_whatever_the_cases_have(tmp_path: Path) -> None:
    config = configured(tmp_path, plan__shape=[64, 64, 64], plan__batch=2, tasks__grade__evidence="anywhere")
    alike = planned(config, *[fingerprint(SHAPE)] * 3)
    varied = planned(config, fingerprint(SHAPE), fingerprint((200, 180, 100)), fingerprint((64, 50, 60)))
    assert alike.view == varied.view == "patch"
    assert alike.memory_bytes == varied.memory_bytes


def test_towers_of_the_other_view_s_tasks_take_no_room_for_maps(tmp_path: Path) -> None:
    """Under ``soft`` a patch runs the voxel task's tower alone: as one encoder and one decoder, but for half a map."""
    settings = {"views__kind": "two", "views__spacing": [4, 4, 4], "plan__shape": [64, 64, 64], "plan__batch": 2}
    hard, soft = (of(tmp_path, 8.0, **settings, sharing__kind=kind) for kind in ("hard", "soft"))
    tower = PARAMETER_BYTES * parameter_count(soft.network, Towers(1))
    assert tower < soft.memory_bytes - hard.memory_bytes < tower + 0.05 * (hard.memory_bytes - PROCESS_BYTES)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"views__kind": "two", "tasks__grade__evidence": "anywhere"}, "there is none"),
        ({"views__kind": "tiles"}, "one view shows them better"),
    ],
)
def test_a_view_that_nothing_asks_for_is_refused(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        planned(configured(tmp_path, **overrides), fingerprint((32, 32, 32)))
    assert (raised.value.key, raised.value.code) == ("views.kind", "B142")


def test_a_set_shape_that_most_cases_do_not_fit_is_a_patch_s(tmp_path: Path) -> None:
    held, larger = fingerprint((32, 32, 32)), fingerprint((40, 32, 32))
    config = configured(tmp_path, plan__shape=[32, 32, 32], views__spacing=[2, 2, 2])
    whole = planned(config, *[held] * 9, larger)
    assert (whole.view, whole.case_view) == ("case", None)
    plan = planned(config, *[held] * 8, *[larger] * 2)
    assert plan.case_view is not None
    assert (plan.view, plan.shape, plan.case_view.kind) == ("patch", (32, 32, 32), "case")
    assert "2 of 10 cases are larger than the shape that is set" in plan.reasons["case_view"]


def test_memory_alone_does_not_make_a_cpu_step_over_large_cases_whole(tmp_path: Path) -> None:
    plan = of(tmp_path, 6.0, 8.0, plan__memory_gb=500)
    assert plan.case_view is not None
    assert (plan.view, plan.case_view.kind) == ("patch", "lesion")
    assert "a step over whole cases would take a CPU many seconds" in plan.reasons["shape"]
    alone = planned(configured(tmp_path, plan__memory_gb=500, tasks__grade__evidence="anywhere"), scan(8.0))
    assert (alone.view, alone.case_view) == ("patch", None)
    assert math.prod(alone.shape) * alone.batch <= 600_000


def test_what_lies_in_the_middle_of_a_window_is_a_mask(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'grade' has no mask; tasks with labels per voxel: lesion") as raised:
        of(tmp_path, 8.0, views__kind="lesion", views__around="grade")
    assert (raised.value.key, raised.value.code) == ("views.around", "B141")
    second = {"kind": "segmentation", "column": "vessel", "labels": {"vessel": 1}}
    with pytest.raises(ConfigError, match=r"name one of lesion, vessels as views\.around") as raised:
        of(tmp_path, 8.0, views__kind="lesion", tasks__vessels=second)
    assert (raised.value.key, raised.value.code) == ("views.kind", "B142")


def test_a_guided_head_reads_its_guide_in_one_view(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lesion in the view of both, and views.kind lesion") as raised:
        of(tmp_path, 8.0, tasks__grade__guided_by="lesion")
    assert (raised.value.key, raised.value.code) == ("tasks.grade.guided_by", "B142")


def test_a_set_window_must_fit_the_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"views.shape \[60, 30, 30\] must be divisible by .* nearest: \[64, 32, 32\]"):
        of(tmp_path, 8.0, views__kind="lesion", views__shape=[60, 30, 30])


@pytest.mark.covers("B140")
def test_a_set_window_keeps_two_voxels_at_the_deepest_stage(tmp_path: Path) -> None:
    for size in (32, 30):
        with pytest.raises(InputError, match=r"views.shape .* single voxel .* nearest: \[64, 32, 32\]") as raised:
            of(tmp_path, 8.0, views__kind="lesion", views__shape=[size] * 3)
        assert (raised.value.code, raised.value.exit_code) == ("B140", 2)
    view = of(tmp_path, 8.0, views__kind="lesion", views__shape=[64, 32, 32]).case_view
    assert view is not None
    assert view.shape == (64, 32, 32)


@pytest.mark.parametrize(
    "text", ["{kind: two, tiles: 4}", "{kind: tiles, spacing: [1, 1, 1]}", "{kind: one, around: lesion}"]
)
def test_keys_of_another_kind_are_refused(tmp_path: Path, text: str) -> None:
    from medmtl.data.formats.strict_yaml import parse

    with pytest.raises(ConfigError, match="leave one away") as raised:
        configured(tmp_path, views=parse(text).data)
    assert raised.value.key == "views"
