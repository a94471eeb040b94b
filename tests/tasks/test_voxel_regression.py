"""Voxel regression: scale, masks, decisions and per-case scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from medmtl.losses.voxel_error import voxel_error_loss
from medmtl.tasks.base import CellError
from medmtl.tasks.voxel_regression import VoxelRegression, VoxelRegressionOptions
from tests.tasks.contract import SHAPE, MapTaskContract, case


def maps(count: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    return [rng.gamma(2.0, 10.0, SHAPE).clip(0, 80).astype(np.float32) for _ in range(count)]


def partly(count: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    found = maps(count)
    for index, values in enumerate(found):
        values[: index + 1] = np.nan
    return found


class TestMap(MapTaskContract):
    primary: ClassVar[str] = "mae"
    options: ClassVar[Mapping[str, Any]] = {"kind": "voxel_regression", "column": "dose", "unit": "Gy"}
    truths: ClassVar[Sequence[Any]] = maps(4)
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"range": [1, 1]}, "lowest, highest"),
        ({"mask": "dose"}, "the map itself"),
        ({"loss": "huber"}, "l1"),
        ({"range": [0, float("nan")]}, "finite"),
    )


class TestSquared(TestMap):
    options: ClassVar[Mapping[str, Any]] = {**TestMap.options, "loss": "l2", "mask": "body", "range": [0, 80]}
    truths: ClassVar[Sequence[Any]] = partly(4)


class TestSimilar(TestMap):
    options: ClassVar[Mapping[str, Any]] = {**TestMap.options, "loss": "l1_ssim", "range": [0, 80]}
    truths: ClassVar[Sequence[Any]] = partly(4)


def task(fitted: Mapping[str, Any] | None = None, **changes: Any) -> VoxelRegression:
    return VoxelRegression("dose", VoxelRegressionOptions.model_validate({**TestMap.options, **changes}), fitted)


def test_a_map_needs_its_mask_where_one_is_declared() -> None:
    files = {"dose": Path("d.nii.gz"), "body": Path("b.nii.gz")}
    masked = task(mask="body")
    assert masked.columns == ("dose", "body")
    assert masked.read(case(files=files)) == Path("d.nii.gz")
    assert masked.read(case(files={"body": Path("b.nii.gz")})) is None
    with pytest.raises(CellError, match="B094"):
        masked.read(case(cells={"body": None}, files={"dose": Path("d.nii.gz")}))
    assert task().read(case(files={"dose": Path("d.nii.gz")})) == Path("d.nii.gz")


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_constant_on_the_heads_scale_costs_the_loss_scale(loss: str) -> None:
    truths = maps(4)
    fitted = task(loss=loss).fit(truths)
    trained = task(fitted, loss=loss)
    target = torch.stack([trained.encode(truth) for truth in truths])
    zeros = torch.zeros(4, 1, *SHAPE)
    assert float(trained.loss((zeros,), target).mean()) == pytest.approx(fitted["loss_scale"], rel=1e-5)
    assert fitted["median"] == pytest.approx(float(np.median(np.stack(truths))), rel=1e-6)


@pytest.mark.parametrize("limits", [[0, 80], None])
def test_similarity_is_that_of_the_values_whatever_scale_the_head_answers_on(limits: list[float] | None) -> None:
    fitted = {"median": 20.0, "spread": 10.0, "data_range": 80.0}
    (truth,) = maps(1)
    output = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = []
    for loss in ("l1_ssim", "l1"):
        trained = task(fitted, loss=loss, range=limits)
        value, target = trained.activate((output,))[:, 0], torch.from_numpy(truth)[None]
        in_unit = voxel_error_loss(value, target, trained.options.loss, 80.0)
        found.append((float(trained.loss((output,), trained.encode(truth)[None])), float(in_unit)))
    (both, both_in_unit), (error, error_in_unit) = found
    assert error == pytest.approx(error_in_unit / 10)
    assert both - error == pytest.approx(both_in_unit - error_in_unit, rel=1e-4) and both > error + 0.1
    (scored,) = [task(range=[0, 80]).mask_scores(value[0].numpy(), truth, (1.0, 1.0, 1.0))["ssim"]]
    assert scored is not None and both - error == pytest.approx(1 - scored, rel=1e-3)


def test_values_that_are_mostly_equal_are_scaled_by_their_deviation() -> None:
    values = np.zeros(100)
    values[:10] = 5.0
    assert task().fit([values])["spread"] == pytest.approx(values.std())


@pytest.mark.covers("B120")
@pytest.mark.parametrize("truths", [[np.ones(5), np.ones(3)], [], [np.empty(0)]])
def test_a_constant_map_is_refused(truths: Sequence[Any]) -> None:
    with pytest.raises(CellError, match="B120"):
        task().fit(truths)


def test_activations_are_in_the_unit_and_decisions_inside_the_range() -> None:
    trained = task({"median": 20.0, "spread": 10.0}, range=[0, 80])
    values = trained.activate((torch.tensor([-5.0, 0.5, 9.0]).reshape(1, 1, 3, 1, 1),))
    assert values.flatten().tolist() == [-30.0, 25.0, 110.0]
    assert trained.decide(values[0]).flatten().tolist() == [0.0, 25.0, 80.0]


def test_a_length_is_sensitive_to_scaling() -> None:
    assert task(unit="mm").sensitive_to == {"scale"}
    assert task().sensitive_to == frozenset()
    with pytest.raises(ValueError, match="its unit is mm, and the model's is Gy"):
        task().same_target(task(unit="mm"))


def test_scores_refer_to_the_declared_range_and_otherwise_to_that_of_the_reference() -> None:
    (truth,) = maps(1)
    for limits, span in (([0, 200], 200.0), (None, float(np.ptp(truth)))):
        scores = task(range=limits).mask_scores(truth + 1, truth, (1.0, 1.0, 1.0))
        assert scores["psnr"] == pytest.approx(20 * np.log10(span), rel=1e-4)
