"""Segmentation: targets, regions, decisions and per-case scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from medmtl.networks.features import Features
from medmtl.tasks.base import ScoredCase
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from tests.tasks.contract import SHAPE, SPEC, LabelTaskContract, case, features, volume

LABELS = {"oedema": 2, "core": 1, "hot": 4}
REGIONS = {"whole": ["oedema", "core", "hot"], "tumour": ["core", "hot"], "bright": ["hot"]}


def label_arrays(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    generator = np.random.default_rng(0)
    return [generator.choice(np.array([0, 1, 2, 4], np.uint8), SHAPE) for _ in range(count)]


class TestLabels(LabelTaskContract):
    primary: ClassVar[str] = "dice"
    options: ClassVar[Mapping[str, Any]] = {
        "kind": "segmentation",
        "column": "label",
        "labels": LABELS,
        "regions": REGIONS,
    }
    truths: ClassVar[Sequence[Any]] = label_arrays(4)
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"labels": {}}, "at least 1"),
        ({"labels": {"a": 0}}, "0 is the background"),
        ({"labels": {"a": -1}}, "greater than 0"),
        ({"labels": {"a": True}, "regions": {}}, "valid integer"),
        ({"labels": {"a": 1, "b": 1}, "regions": {}}, "one value"),
        ({"labels": {"A": 1}, "regions": {}}, "pattern"),
        ({"regions": {"x": ["nothing"]}}, "nothing|declared"),
        ({"regions": {"core": ["hot"]}}, "core"),
        ({"tolerance_mm": 0}, "greater than 0"),
        ({"smoothing": 1}, "Extra"),
    )


class TestRegions(LabelTaskContract):
    primary: ClassVar[str] = "dice"
    options: ClassVar[Mapping[str, Any]] = {**TestLabels.options, "train": "regions"}
    truths: ClassVar[Sequence[Any]] = label_arrays(4)
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"regions": {}}, "regions"),
        ({"regions": {"bright": ["hot"], "whole": ["oedema", "core", "hot"]}}, "exactly one"),
        ({"regions": {"whole": ["oedema", "core", "hot"], "bright": ["hot"]}}, "exactly one"),
        ({"regions": {"tumour": ["core", "hot"], "bright": ["hot"]}}, "oedema"),
    )


def task(**changes: Any) -> Segmentation:
    return Segmentation("brain", SegmentationOptions.model_validate({**TestLabels.options, **changes}))


def test_the_label_file_is_the_target_and_none_means_not_labelled() -> None:
    assert task().read(case(files={"label": Path("a.nii.gz")})) == Path("a.nii.gz")
    assert task().read(case()) is None


def test_values_become_class_indices_in_the_declared_order() -> None:
    encoded = task().encode(np.array([[[0, 1, 2, 4]]], np.int16))
    assert encoded.flatten().tolist() == [0, 2, 1, 3]
    assert encoded.dtype == torch.uint8


def test_more_than_255_labels_and_large_values_do_not_wrap() -> None:
    many = task(labels={f"l{i}": i + 1 for i in range(300)}, regions={})
    assert many.encode(np.array([[[300, 256]]])).flatten().tolist() == [300, 256]
    large = task(labels={"a": 65535}, regions={})
    assert large.decide(torch.tensor([0.1, 0.9])[:, None, None, None]).tolist() == [[[65535]]]


def test_values_of_names_regions_and_foreground() -> None:
    assert set(task().values_of("tumour")) == {1, 4}
    assert set(task().values_of("oedema")) == {2}
    assert set(task().values_of(None)) == {1, 2, 4}
    with pytest.raises(ValueError, match="'liver'"):
        task().values_of("liver")


def test_labels_are_decided_by_the_likeliest_class() -> None:
    probability = torch.tensor([[0.1, 0.6], [0.5, 0.2], [0.3, 0.1], [0.1, 0.1]])[:, :, None, None]
    assert task().decide(probability).flatten().tolist() == [2, 0]


def test_decisions_and_their_ties_are_those_of_numpys_argmax() -> None:
    probability = np.random.default_rng(0).integers(0, 4, (4, 9, 8, 7))
    values = np.array([0, *LABELS.values()])
    found = task().decide(torch.from_numpy(probability).float())
    np.testing.assert_array_equal(found.numpy(), values[probability.argmax(0)])
    assert found.dtype == torch.uint8


def test_composing_a_references_own_regions_gives_the_reference() -> None:
    trained = task(train="regions")
    truth = label_arrays(1)[0]
    members = [np.isin(truth, trained.values_of(name)) for name in REGIONS]
    probability = torch.from_numpy(np.stack(members)).float()
    np.testing.assert_array_equal(trained.decide(probability).numpy(), truth)


def test_a_later_region_overwrites_an_earlier_one() -> None:
    # whole alone, tumour without whole, all three, none
    probability = torch.tensor([[0.9, 0.2, 0.9, 0.5], [0.1, 0.8, 0.9, 0.5], [0.1, 0.2, 0.6, 0.5]])[:, :, None, None]
    assert task(train="regions").decide(probability).flatten().tolist() == [2, 1, 4, 0]


def test_region_loss_does_not_prefer_a_label_inside_the_same_regions() -> None:
    trained = task(train="regions", regions={"whole": ["oedema", "core", "hot"], "b": ["core", "hot"], "c": ["hot"]})
    truth = np.zeros(SHAPE, np.uint8)
    truth[:4] = 4
    target = trained.encode(truth)[None]
    good = torch.where(target[:, None].bool(), 20.0, -20.0).expand(-1, 3, -1, -1, -1)
    assert float(trained.loss((good,), target)) < 1e-4
    assert float(trained.loss((-good,), target)) > 10


def test_a_head_has_an_output_per_decoder_map_in_training_and_the_finest_afterwards() -> None:
    head = task().head(SPEC)
    maps = features(2)
    assert [tuple(level.shape) for level in head.train()(maps)] == [(2, 4, 8, 8, 4), (2, 4, 4, 4, 4)]
    (finest,) = head.eval()(Features(maps.encoder, maps.decoder))
    assert finest.shape == (2, 4, 8, 8, 4)


def halves(first: int, second: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((4, 2, 2), np.uint8)
    mask[:first] = 1
    mask[4 - second :] = 2
    return mask


def two(**changes: Any) -> Segmentation:
    return task(labels={"left": 1, "right": 2}, regions={"both": ["left", "right"]}, **changes)


def test_scores_of_a_known_overlap() -> None:
    scores = two().mask_scores(halves(2, 1), halves(1, 1), (2.0, 5.0, 10.0))
    assert scores["dice/left"] == pytest.approx(2 * 4 / (8 + 4))
    assert scores["dice/right"] == 1.0
    assert scores["dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["dice/both"] == pytest.approx(2 * 8 / (12 + 8))
    assert scores["volume_error_ml/left"] == pytest.approx(4 * 0.1)
    assert scores["volume_error_ml"] == pytest.approx(0.2)
    assert scores["hd95_mm/right"] == 0.0
    assert scores["nsd_1mm/right"] == 1.0
    for tolerance, name in ((1.0, "nsd_1mm/left"), (10.0, "nsd_10mm/left")):
        shifted = task(labels={"left": 1}, regions={}, tolerance_mm=tolerance)
        scores = shifted.mask_scores(halves(2, 1), halves(1, 1), (2.0, 5.0, 10.0))
        assert (scores[name] == 1.0) == (tolerance == 10.0)


def test_the_three_empty_cases_follow_the_contract() -> None:
    diagonal = math.hypot(4, 2, 2)
    empty = two().mask_scores(halves(0, 1), halves(0, 1), (1, 1, 1))
    assert empty["dice/left"] is None
    assert empty["hd95_mm/left"] is None
    assert (empty["missed/left"], empty["false/left"]) == (0.0, 0.0)
    assert empty["dice"] == 1.0
    missed = two().mask_scores(halves(0, 1), halves(1, 1), (1, 1, 1))
    assert (missed["dice/left"], missed["nsd_1mm/left"]) == (0.0, 0.0)
    assert missed["hd95_mm/left"] == pytest.approx(diagonal)
    assert (missed["missed/left"], missed["false/left"]) == (1.0, 0.0)
    false = two().mask_scores(halves(1, 1), halves(0, 1), (1, 1, 1))
    assert (false["dice/left"], false["missed/left"], false["false/left"]) == (0.0, 0.0, 1.0)
    nothing = two().mask_scores(halves(0, 0), halves(0, 0), (1, 1, 1))
    assert nothing["dice"] is None


def test_means_carry_their_counts_and_leave_true_negatives_out() -> None:
    segmentation = two(tolerance_mm=2.5)
    pairs = [((1, 1), (1, 1)), ((0, 1), (1, 1)), ((1, 1), (0, 1)), ((0, 1), (0, 1))]
    cases = []
    for index, (predicted, truth) in enumerate(pairs):
        mask = halves(*predicted)
        scores = segmentation.mask_scores(mask, halves(*truth), (1, 1, 1))
        result = segmentation.result(volume(mask))
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, Path("x"), result, scores))
    metrics = segmentation.metrics(cases)
    left = metrics["dice/left"]
    assert left.value == pytest.approx(1 / 3)
    assert left.n == 3
    assert {key: left.extra[key] for key in ("n_missed", "n_false", "n_true_negative")} == {
        "n_missed": 1,
        "n_false": 1,
        "n_true_negative": 1,
    }
    assert (left.extra["n_present"], left.extra["n_empty"]) == (2, 2)
    assert metrics["dice"].value == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)
    assert metrics["dice"].extra["n_missed"] == 1
    assert "nsd_2.5mm/right" in metrics
    assert metrics["volume_error_ml/left"].better == "zero"
    assert metrics["volume_error_ml/left"].value == pytest.approx(0.0)


def test_means_over_the_references_that_hold_a_label_stand_beside_those_with_empty_ones() -> None:
    segmentation = two()
    pairs = [((1, 1), (1, 1)), ((0, 1), (1, 1)), ((1, 1), (0, 1)), ((1, 0), (0, 0))]
    cases = []
    for index, (predicted, truth) in enumerate(pairs):
        scores = segmentation.mask_scores(halves(*predicted), halves(*truth), (1, 1, 1))
        result = segmentation.result(volume(halves(*predicted)))
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, Path("x"), result, scores))
    metrics = segmentation.metrics(cases)
    # case 1 misses left, case 2 has right alone, and the reference of case 3 is empty
    present, left = metrics["dice_present"], metrics["dice_present/left"]
    assert (present.value, present.n) == (pytest.approx((1 + 0.5 + 1) / 3), 3)
    assert (left.value, left.n) == (pytest.approx(0.5), 2)
    assert (present.extra, left.extra) == ({"n_missed": 1, "n_present": 5}, {"n_missed": 1, "n_present": 2})
    assert metrics["hd95_mm_present/left"].value == pytest.approx(math.hypot(4, 2, 2) / 2)
    assert metrics["dice"].extra["n_present"] == 5 and metrics["dice"].extra["n_empty"] == 3
    assert not any("_present" in name for name in segmentation.metrics(cases[:2]))


def test_volumes_are_in_ml_on_the_masks_own_grid() -> None:
    result = two().result(volume(halves(2, 1), spacing=(5.0, 10.0, 10.0)))
    assert result.cells("brain") == {"brain_left_ml": pytest.approx(4.0), "brain_right_ml": pytest.approx(2.0)}


def test_another_cohorts_values_are_translated_by_the_names_of_the_labels() -> None:
    other = task(labels={"hot": 1, "oedema": 7, "core": 300})
    task().same_target(other)
    array = np.array([[[0, 1, 7, 300, 9]]])
    assert task().translated(array, other).tolist() == [[[0, 4, 2, 1, 0]]]
    with pytest.raises(ValueError, match="its labels are oedema, core, and the model's are oedema, core, hot"):
        task().same_target(task(labels={"oedema": 2, "core": 1}, regions={}))


class TestIgnored(LabelTaskContract):
    primary: ClassVar[str] = "dice"
    options: ClassVar[Mapping[str, Any]] = {**TestLabels.options, "ignore": 255, "loss": "dice_focal", "lesions": True}
    truths: ClassVar[Sequence[Any]] = [np.where(mask == 1, 255, mask).astype(np.uint8) for mask in label_arrays(4)]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"ignore": 4}, "value of a label"),
        ({"ignore": 0}, "greater than 0"),
        ({"beta": 0.7}, "tversky"),
        ({"loss": "tversky", "beta": 1.0}, "less than 1"),
        ({"loss": "hinge"}, "dice_ce"),
    )


class TestTversky(LabelTaskContract):
    primary: ClassVar[str] = "dice"
    options: ClassVar[Mapping[str, Any]] = {
        **TestLabels.options,
        "train": "regions",
        "ignore": 3,
        "loss": "tversky",
        "beta": 0.6,
    }
    truths: ClassVar[Sequence[Any]] = [np.where(mask == 1, 3, mask).astype(np.uint8) for mask in label_arrays(4)]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()


def test_the_price_of_a_missed_voxel_is_the_declared_one_and_otherwise_seven_tenths() -> None:
    truth = label_arrays(1)[0]
    nothing = torch.zeros(1, 4, *SHAPE)
    nothing[:, 0] = 5.0
    by_default, low, middle, high = (
        float(trained.loss((nothing,), trained.encode(truth)[None]))
        for trained in (task(loss="tversky", beta=beta) for beta in (None, 0.1, 0.7, 0.9))
    )
    assert low < middle < high and by_default == middle


@pytest.mark.parametrize("changes", [{}, {"train": "regions"}, {"loss": "tversky"}, {"loss": "dice_focal"}])
def test_what_is_predicted_in_ignored_voxels_does_not_matter_to_the_loss(changes: Mapping[str, Any]) -> None:
    trained = task(ignore=255, **changes)
    truth = label_arrays(1)[0].copy()
    truth[:3] = 255
    target = trained.encode(truth)[None]
    channels = 3 if changes.get("train") == "regions" else 4
    logits = torch.randn(1, channels, *SHAPE, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[:, :, :3] += 5 * torch.randn(other[:, :, :3].shape, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(logits, other)
    torch.testing.assert_close(trained.loss((logits,), target), trained.loss((other,), target), rtol=0, atol=0)


def test_255_labels_and_an_ignored_value_do_not_wrap() -> None:
    many = task(labels={f"l{i}": i + 1 for i in range(255)}, regions={}, ignore=300)
    assert many.encode(np.array([[[255, 300, 0]]])).flatten().tolist() == [255, 256, 0]


def test_ignored_voxels_are_taken_out_of_both_masks() -> None:
    predicted, truth = halves(2, 1), halves(1, 1)
    truth[1] = 255  # predicted as left, and nobody labelled it
    scores = two(ignore=255).mask_scores(predicted, truth, (10.0, 10.0, 10.0))
    assert (scores["dice/left"], scores["hd95_mm/left"], scores["volume_error_ml/left"]) == (1.0, 0.0, 0.0)
    truth[0] = 255
    scores = two(ignore=255).mask_scores(predicted, truth, (10.0, 10.0, 10.0))
    assert (scores["dice/left"], scores["false/left"]) == (None, 0.0)


def test_the_cut_of_a_mask_that_reaches_ignored_voxels_alone_counts_as_surface() -> None:
    truth = np.zeros((6, 1, 1), np.uint8)
    truth[:2], truth[4:] = 1, 255
    predicted = np.ones((6, 1, 1), np.uint8)
    scores = two(ignore=255).mask_scores(predicted, truth, (1.0, 1.0, 1.0))
    assert scores["dice/left"] == pytest.approx(2 * 2 / (4 + 2))
    assert scores["hd95_mm/left"] == pytest.approx(np.percentile([0, 0, 1, 2], 95))


def test_what_another_cohort_ignores_is_ignored_here() -> None:
    other = task(ignore=9)
    array = np.array([[[0, 1, 9, 4]]])
    for own in (task(), task(ignore=255)):
        truth = own.translated(array, other)
        predicted = np.array([[[0, 1, 1, 4]]])
        assert own.mask_scores(predicted, truth, (1.0, 1.0, 1.0))["dice/core"] == 1.0


def test_lesions_are_scored_one_by_one_where_asked_for() -> None:
    truth, predicted = np.zeros((2, 12, 1, 1), np.uint8)
    truth[0:2], truth[4:6], truth[8:10] = 1, 1, 2
    predicted[0:2], predicted[8:10], predicted[11] = 1, 2, 1
    assert "lesion_f1" not in two().mask_scores(predicted, truth, (1.0, 1.0, 1.0))
    segmentation = two(lesions=True)
    scores = segmentation.mask_scores(predicted, truth, (1.0, 1.0, 1.0))
    assert (scores["lesion_f1/left"], scores["lesion_sensitivity/left"]) == (0.5, 0.5)
    assert (scores["lesion_false_positives/left"], scores["lesion_f1/right"]) == (1.0, 1.0)
    assert scores["lesion_f1"] == 0.75
    result = segmentation.result(volume(predicted))
    metrics = segmentation.metrics([ScoredCase("c", "p", None, 0, Path("x"), result, scores)])
    assert metrics["lesion_sensitivity/left"].extra == {"n_lesions": 2, "n_lesions_found": 1, "n_lesions_false": 1}
    assert metrics["lesion_false_positives"].better == "lower"
