from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou as monai_iou
from monai.metrics.froc import compute_froc_curve_data, compute_froc_score

from medmtl.metrics.detection import (
    AP_IOUS,
    FROC_RATES,
    DetectedCase,
    average_precision,
    froc,
    froc_curve,
    hits,
)

CUBE = np.array([[0.0, 0, 0, 4, 4, 4]])


def cohort(cases: int, seed: int = 0) -> list[DetectedCase]:
    """Cases with 0 to 3 lesions, most of them found more or less, and up to 5 boxes elsewhere."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(cases):
        low = rng.uniform(0, 60, (index % 4, 3))
        truth = np.concatenate([low, low + rng.uniform(4, 9, low.shape)], axis=1)
        near = truth[rng.random(len(truth)) < 0.8]
        near = near + rng.normal(0, 1, near.shape)
        stray = rng.uniform(0, 60, (int(rng.integers(6)), 3))
        box = np.concatenate([near, near[:1] + 0.5, np.concatenate([stray, stray + 6], axis=1)])
        score = np.concatenate([rng.beta(3, 2, len(near) + len(near[:1])), rng.beta(2, 3, len(stray))])
        made.append(DetectedCase(box, score, truth, f"p{index}"))
    return made


def case(score: list[float], box: np.ndarray, truth: np.ndarray = CUBE, fold: int = 0) -> DetectedCase:
    return DetectedCase(box, np.array(score), truth, f"p{fold}", fold)


def test_a_reference_counts_once_and_for_the_highest_score() -> None:
    twice = np.concatenate([CUBE + 0.1, CUBE])
    assert hits(twice, np.array([0.9, 0.8]), CUBE, 0.1).tolist() == [True, False]
    assert hits(twice, np.array([0.8, 0.9]), CUBE, 0.1).tolist() == [False, True]


def test_a_box_takes_the_free_reference_that_it_overlaps_most() -> None:
    truth = np.array([[0.0, 0, 0, 4, 4, 4], [2, 0, 0, 6, 4, 4]])
    both = np.array([[2.0, 0, 0, 6, 4, 4], [1.9, 0, 0, 5.9, 4, 4]])
    assert hits(both, np.array([0.9, 0.8]), truth, 0.3).tolist() == [True, True]
    assert hits(both, np.array([0.9, 0.8]), truth, 0.5).tolist() == [True, False]


def test_the_threshold_itself_is_reached() -> None:
    half = np.array([[0.0, 0, 0, 4, 4, 2]])
    assert hits(half, np.array([0.9]), CUBE, 0.5).tolist() == [True]
    assert hits(half, np.array([0.9]), CUBE, 0.51).tolist() == [False]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_monais(seed: int) -> None:
    cases = cohort(24, seed)
    coco = COCOMetric(["lesion"], iou_list=[0.1, 0.3, 0.5], max_detection=[100], verbose=False)
    matches = matching_batch(
        monai_iou,
        coco.iou_thresholds,
        [c.box_N6 for c in cases],
        [np.zeros(len(c.score_N), int) for c in cases],
        [c.score_N for c in cases],
        [c.truth_M6 for c in cases],
        [np.zeros(len(c.truth_M6), int) for c in cases],
    )
    expected, _ = coco(matches)
    for iou in (0.1, 0.3, 0.5):
        key = f"lesion_AP_IoU_{iou:.2f}_MaxDet_100"
        assert average_precision(cases, [iou]).value == pytest.approx(expected[key], abs=1e-6)
    assert average_precision(cases, AP_IOUS).value == pytest.approx(
        expected["lesion_mAP_IoU_0.10_0.50_0.05_MaxDet_100"], abs=1e-6
    )


@pytest.mark.parametrize("seed", range(4))
def test_froc_is_monais(seed: int) -> None:
    cases = cohort(24, seed)
    matched = [hits(c.box_N6, c.score_N, c.truth_M6, 0.1) for c in cases]
    true = np.concatenate([c.score_N[hit] for c, hit in zip(cases, matched, strict=True)])
    false = np.concatenate([c.score_N[~hit] for c, hit in zip(cases, matched, strict=True)])
    # the lowest score is no threshold of MONAI's
    lesions = sum(len(c.truth_M6) for c in cases)
    curve = compute_froc_curve_data(np.append(false, -1.0), true, lesions, len(cases))
    estimate = froc(cases)
    assert estimate.value == pytest.approx(compute_froc_score(*curve, FROC_RATES))
    assert estimate.extra["n_lesions"] == lesions
    assert np.mean(list(estimate.extra["sensitivity"].values())) == pytest.approx(estimate.value, abs=1e-4)


def test_froc_by_hand() -> None:
    stray = CUBE + 50
    cases = [
        case([0.9, 0.5], np.concatenate([CUBE, stray])),
        case([0.7], stray, np.empty((0, 6))),
        case([0.6], CUBE),
        case([], np.empty((0, 6)), np.empty((0, 6))),
    ]
    # points (false per case, sensitivity): (0, 1/2), (1/4, 1/2), (1/4, 1), (1/2, 1)
    assert froc(cases).value == pytest.approx((0.5 + 6 * 1.0) / 7)
    assert froc(cases).extra["sensitivity"]["0.125"] == 0.5


def test_boxes_of_one_score_are_in_or_out_together() -> None:
    stray = np.concatenate([CUBE, CUBE + 50])
    forward, backward = case([0.5, 0.5], stray), case([0.5, 0.5], stray[::-1])
    assert average_precision([forward], [0.1]).value == average_precision([backward], [0.1]).value == 0.5


def test_a_case_without_a_lesion_counts_by_its_false_positives_alone() -> None:
    found = case([0.5], CUBE)
    empty = case([], np.empty((0, 6)), np.empty((0, 6)))
    wrong = replace(empty, box_N6=CUBE, score_N=np.array([0.9]))
    assert average_precision([found, empty], [0.1]).value == 1
    assert average_precision([found, wrong], [0.1]).value == pytest.approx(0.5)


def test_scores_of_two_folds_are_not_compared() -> None:
    stray = np.concatenate([CUBE, CUBE + 50])
    # within each fold the lesion comes first, though the second fold's stray box outscores the first fold's lesion
    cases = [case([0.2, 0.1], stray), case([0.9, 0.8], stray, fold=1)]
    assert average_precision(cases, [0.1]).value == 1
    assert average_precision([replace(c, fold=0) for c in cases], [0.1]).value < 1


def test_folds_count_by_their_lesions() -> None:
    two = np.concatenate([CUBE, CUBE + 20])
    cases = [case([0.9], CUBE), case([], np.empty((0, 6)), two, fold=1)]
    assert average_precision(cases, [0.1]).value == pytest.approx(1 / 3)
    assert froc(cases).value == pytest.approx(1 / 3)


def test_without_a_lesion_there_is_no_value() -> None:
    for cases in ([], [case([0.5], CUBE, np.empty((0, 6)))]):
        for estimate in (froc(cases), average_precision(cases, [0.1])):
            assert estimate.value is None
            assert estimate.why
        assert froc_curve(cases) == ((), ())


def test_nothing_found_is_a_score_of_zero() -> None:
    nothing = case([], np.empty((0, 6)))
    assert froc([nothing]).value == average_precision([nothing], AP_IOUS).value == 0


def test_intervals_are_over_patients_and_hold_the_value() -> None:
    cases = cohort(24)
    for estimate in (froc(cases), average_precision(cases, [0.1])):
        assert estimate.value is not None
        assert estimate.ci95 is not None
        assert 0 <= estimate.ci95[0] < estimate.value < estimate.ci95[1] <= 1
        assert estimate.ci == "bca"
    few = [replace(c, patient="one") for c in cases]
    assert froc(few).ci95 is None


def test_the_curve_rises_between_the_rates_of_the_score() -> None:
    rates, sensitivities = froc_curve(cohort(24))
    assert (rates[0], rates[-1]) == pytest.approx((1 / 8, 8))
    assert list(sensitivities) == sorted(sensitivities)
