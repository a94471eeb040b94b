from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medmtl.errors import InputError
from medmtl.planning import Plan
from tests.planning.cohorts import LARGE, configured, fingerprint, planned

pytestmark = pytest.mark.covers("B089")


def refusal(folder: Path, **overrides: Any) -> str:
    with pytest.raises(InputError) as raised:
        of(folder, **overrides)
    assert (raised.value.code, raised.value.exit_code) == ("B089", 2)
    return str(raised.value)


def of(folder: Path, **overrides: Any) -> Plan:
    return planned(configured(folder, views__kind="one", **overrides), *map(fingerprint, LARGE))


def named(message: str) -> Mapping[str, Any]:
    """Settings that a refusal names."""
    return {key: json.loads(value) for key, value in re.findall(r"(plan\.\w+): (\[[^]]*\]|\d+)", message)}


def test_bytes_and_limit_are_named(tmp_path: Path) -> None:
    need = of(tmp_path, plan__batch=1).memory_bytes
    message = refusal(tmp_path, plan__memory_gb=1.2)
    assert "1 x [160, 160, 160] voxels, for tasks that must see the whole case (grade), need " in message
    assert f"need {math.ceil(need / 1e7) / 100:.2f} GB" in message
    assert "plan.memory_gb is 1.2" in message


@pytest.mark.parametrize("key", ["plan.spacing", "plan.shape"])
def test_each_setting_that_is_named_fits_and_is_not_far_from_the_limit(tmp_path: Path, key: str) -> None:
    value = named(refusal(tmp_path, plan__memory_gb=1.2))[key]
    plan = of(tmp_path, plan__memory_gb=1.2, **{key.replace(".", "__"): value})
    assert plan.view == "case"
    assert 0.9 * 1.2e9 < plan.memory_bytes <= 1.2e9


def test_the_budget_that_is_named_is_enough(tmp_path: Path) -> None:
    wanted = float(re.findall(r"raise plan.memory_gb to ([\d.]+)", refusal(tmp_path, plan__memory_gb=1.2))[0])
    assert wanted - 0.1 < of(tmp_path, plan__memory_gb=wanted).memory_bytes / 1e9 <= wanted


def test_a_batch_that_was_set_is_not_lowered_in_silence(tmp_path: Path) -> None:
    limit = (of(tmp_path, plan__batch=3, plan__memory_gb=60).memory_bytes + 1) / 1e9
    message = refusal(tmp_path, plan__batch=5, plan__memory_gb=limit)
    assert named(message)["plan.batch"] == 3
    assert of(tmp_path, plan__batch=3, plan__memory_gb=limit).batch == 3


def test_a_shape_that_was_set_is_not_shortened_in_silence(tmp_path: Path) -> None:
    anywhere = {"tasks__grade__evidence": "anywhere", "plan__memory_gb": 1.2}
    message = refusal(tmp_path, plan__shape=[160, 160, 160], **anywhere)
    assert "plan.spacing" not in message
    assert "evidence" not in message
    plan = of(tmp_path, plan__shape=named(message)["plan.shape"], **anywhere)
    assert (plan.view, plan.memory_bytes <= 1.2e9) == ("patch", True)


def test_where_nothing_fits_only_the_budget_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, plan__memory_gb=0.1)
    assert "no coarser spacing and no crop fits, or raise plan.memory_gb to" in message


def test_thick_slices_are_not_made_thicker_than_need_be(tmp_path: Path) -> None:
    thick = fingerprint((400, 400, 40), (0.5, 0.5, 5.0))
    with pytest.raises(InputError) as raised:
        planned(configured(tmp_path, views__kind="one", plan__memory_gb=1.5), thick)
    spacing = named(str(raised.value))["plan.spacing"]
    assert spacing[0] == spacing[1] > 0.5
    assert spacing[2] == 5.0
    assert planned(configured(tmp_path, plan__memory_gb=1.5, plan__spacing=spacing), thick).memory_bytes <= 1.5e9


def test_a_setting_that_leaves_one_voxel_at_the_deepest_stage_is_not_named(tmp_path: Path) -> None:
    halved = {"plan__strides": [[1] * 3, *[[2] * 3] * 5], "plan__kernels": [[3] * 3] * 6}
    least = of(tmp_path, plan__shape=[64, 32, 32], plan__batch=1, plan__memory_gb=60, **halved).memory_bytes
    message = refusal(tmp_path, plan__memory_gb=(least - 1) / 1e9, **halved)
    assert "no coarser spacing and no crop fits" in message


@pytest.mark.parametrize("kind", ["two", "lesion"])
def test_what_is_named_fits_beside_a_second_view(tmp_path: Path, kind: str) -> None:
    settings: dict[str, Any] = {"views__kind": kind, "plan__memory_gb": 4.0, "plan__shape": [192, 192, 128]}

    def planned_with(**changed: Any) -> Plan:
        return planned(configured(tmp_path, **{**settings, **changed}), fingerprint((256, 256, 160)))

    with pytest.raises(InputError, match=r"2 x \[192, 192, 128\] voxels need") as raised:
        planned_with()
    message = str(raised.value)
    assert not any(words in message for words in ("centre of each case", "evidence", "tiles"))
    shape = named(message)["plan.shape"]
    assert list(planned_with(plan__shape=shape).shape) == shape
    enough = float(re.findall(r"raise plan.memory_gb to ([\d.]+)", message)[0])
    assert planned_with(plan__memory_gb=enough).memory_bytes <= enough * 1e9
