"""Regression: cells, scale, transforms, derived values and metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import linregress, norm
from sklearn.metrics import mean_absolute_error, r2_score

from medmtl.metrics.figures import BlandAltmanFigure, ScatterFigure
from medmtl.tasks.base import CaseTask, CellError, ScoredCase
from medmtl.tasks.regression import Regression, RegressionOptions, RegressionResult
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from tests.tasks.contract import CaseTaskContract, case, volume


class TestPlain(CaseTaskContract):
    options: ClassVar[Mapping[str, Any]] = {"kind": "regression", "column": "value"}
    truths: ClassVar[Sequence[Any]] = [3.0, 5.0, 4.0, 9.0, 1.0]
    primary = "mae"
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"range": [2, 2]}, "lowest"),
        ({"range": [0, math.inf]}, "finite"),
        ({"transform": "logit"}, "range"),
        ({"transform": "sqrt"}, "logit"),
        ({"huber_delta": 0}, "greater than 0"),
        ({"loss": "mse"}, "beta_nll"),
        ({"loss": "beta_nll", "huber_delta": 2.0}, "huber_delta belongs to loss: huber"),
        ({"derived_from": "heart", "unit": "%"}, "ejection_fraction"),
        ({"derived_from": {"measure": "volume", "of": "heart"}, "unit": "cm3"}, "mm3"),
        ({"derived_from": {"measure": "mass", "of": "heart"}}, "mass"),
    )

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        return torch.tensor([truth])


class TestLog(TestPlain):
    options: ClassVar[Mapping[str, Any]] = {**TestPlain.options, "transform": "log", "unit": "ml"}
    truths: ClassVar[Sequence[Any]] = [10.0, 100.0, 1000.0, 20.0]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()


class TestLogit(TestPlain):
    options: ClassVar[Mapping[str, Any]] = {**TestPlain.options, "transform": "logit", "range": [0, 100], "unit": "%"}
    truths: ClassVar[Sequence[Any]] = [10.0, 50.0, 80.0, 20.0]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()


class TestUncertain(TestPlain):
    options: ClassVar[Mapping[str, Any]] = {**TestPlain.options, "loss": "beta_nll"}
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        return torch.tensor([truth, truth - 1, truth + 1])


class TestUncertainLogit(TestUncertain):
    options: ClassVar[Mapping[str, Any]] = {**TestLogit.options, "loss": "beta_nll"}
    truths: ClassVar[Sequence[Any]] = TestLogit.truths


def build(truths: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 5.0), **options: Any) -> Regression:
    made = RegressionOptions.model_validate({"kind": "regression", "column": "value", **options})
    return Regression("volume", made, Regression("volume", made).fit(truths))


def read(cell: str, **options: Any) -> float | None:
    return build(**options).read(case(cells={"value": cell}))


@pytest.mark.parametrize(("cell", "value"), [("12", 12.0), ("-1.5e-3", -0.0015), (".5", 0.5), ("+7.", 7.0)])
def test_plain_numbers_are_read(cell: str, value: float) -> None:
    assert read(cell) == value


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        *(
            pytest.param(cell, "B006", marks=pytest.mark.covers("B006"))
            for cell in ("2,5", "1,234", "-0,5e3", "1 234", "1.234.567", "1.234,5", "1'234.5", "12\u00a0345")
        ),
        *(pytest.param(cell, "B116", marks=pytest.mark.covers("B116")) for cell in ("?", "-", "n/a", "N/A", "None")),
        *(pytest.param(cell, "B118", marks=pytest.mark.covers("B118")) for cell in ("1;2", "1 | 2", "120/80", "1, 2")),
        *(
            pytest.param(cell, "B119", marks=pytest.mark.covers("B119"))
            for cell in ("nan", "inf", "-Infinity", "1e999", "12 ml", " 3", "", "1_000", "0x10", "\u0663", "big", "1;x")
        ),
    ],
)
def test_anything_else_is_refused(cell: str, code: str) -> None:
    with pytest.raises(CellError) as caught:
        read(cell)
    assert (caught.value.code, caught.value.found, caught.value.column) == (code, cell, "value")
    assert caught.value.expected.startswith("a number")
    assert caught.value.fix


@pytest.mark.covers("B121")
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("101", {"range": [0, 100]}),
        ("-9999", {"range": [0, 100]}),
        ("100", {"range": [0, 100], "transform": "logit", "unit": "%"}),
        ("0", {"transform": "log"}),
    ],
)
def test_values_out_of_range_are_refused(cell: str, options: dict[str, Any]) -> None:
    truths = [10.0, 20.0, 30.0]
    task = build(truths, **options)
    with pytest.raises(CellError) as caught:
        task.read(case(cells={"value": cell}))
    assert caught.value.code == "B121"


def test_the_bounds_of_the_range_belong_to_it() -> None:
    assert (read("0", range=[0, 10]), read("10", range=[0, 10])) == (0.0, 10.0)


@pytest.mark.covers("B120")
@pytest.mark.parametrize("truths", [[], [3.0], [0.1] * 7])
def test_a_constant_target_is_refused(truths: list[float]) -> None:
    with pytest.raises(CellError) as caught:
        build(truths)
    assert caught.value.code == "B120"


def test_scale_is_median_and_interquartile_range_and_loss_scale_that_of_the_median() -> None:
    task = build([1.0, 2.0, 3.0, 4.0, 9.0])
    assert (task.fitted["median"], task.fitted["spread"]) == (3.0, 2.0)
    # residuals -1, -0.5, 0, 0.5, 3 in IQR
    assert task.loss_scale == pytest.approx((0.5 + 0.125 + 0 + 0.125 + 2.5) / 5)
    assert float(task.encode(9.0)) == pytest.approx(3.0)


def test_the_loss_grows_linearly_from_the_declared_residual_on() -> None:
    output, target = torch.tensor([[3.0]]), torch.tensor([0.0])
    assert float(build().loss(output, target)) == pytest.approx(2.5)
    assert float(build(huber_delta=0.1).loss(output, target)) == pytest.approx(0.1 * 2.95)
    truths = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert build(truths, huber_delta=0.1).fitted["loss_scale"] == pytest.approx(0.1 * (2 * 0.95 + 2 * 0.45) / 5)


def test_mostly_equal_values_are_scaled_by_their_deviation() -> None:
    assert build([0.0, 0.0, 0.0, 0.0, 10.0]).fitted["spread"] == pytest.approx(4.0)


@pytest.mark.parametrize("options", [{}, {"transform": "log"}, {"transform": "logit", "range": [0, 60]}])
def test_activate_undoes_encode(options: dict[str, Any]) -> None:
    values = [5.0, 30.0, 59.0, 12.5]
    task = build(values, **options)
    encoded = torch.stack([task.encode(value) for value in values])[:, None]
    assert task.activate(encoded).flatten().tolist() == pytest.approx(values, rel=1e-5)


def test_folds_of_different_scale_average_in_the_unit() -> None:
    low, high = build([1.0, 2.0, 3.0]), build([100.0, 200.0, 300.0])
    at_median = torch.zeros(1, 1)
    assert float((low.activate(at_median) + high.activate(at_median)) / 2) == pytest.approx(101)


def test_doubts_of_values_carry_their_case_and_rule() -> None:
    truths = {f"c{i}": float(20 + i) for i in range(20)} | {"a": 999.0, "b": 999.0, "far": 400.0}
    doubts = build(transform="none").doubts(truths)
    assert [(doubt.code, doubt.case_id, doubt.found) for doubt in doubts] == [
        ("B121", None, "999 in 2 rows, an extreme"),
        ("B122", "far", "400, 74 MAD away"),
    ]
    assert build().doubts({}) == []


@pytest.mark.covers("B128")
def test_percentages_that_are_written_as_shares_are_doubted() -> None:
    shares = {f"c{i}": 0.3 + i / 50 for i in range(20)}
    (doubt,) = build(unit="%", range=[0, 100]).doubts(shares)
    assert (doubt.code, doubt.column, doubt.found) == ("B128", "value", "20 values, none above 1")
    assert build(range=[0, 1]).doubts(shares) == build().doubts(shares) == []


def test_a_logarithm_is_not_surprised_by_a_long_tail() -> None:
    truths = {f"c{i}": 1.5**i for i in range(20)}
    assert [doubt.code for doubt in build(transform="log").doubts(truths)] == []
    assert "B122" in [doubt.code for doubt in build().doubts(truths)]


def test_strata_are_quarters() -> None:
    strata = build().strata({f"c{i}": float(i) for i in range(8)})
    assert list(strata.values()) == [f"quarter {i // 2 + 1}" for i in range(8)]


@pytest.mark.parametrize(
    ("unit", "expected"), [("mm3", {"scale", "crop"}), ("mm", {"scale", "crop"}), ("%", {"crop"}), (None, {"crop"})]
)
def test_sizes_are_sensitive_to_scaling(unit: str | None, expected: set[str]) -> None:
    assert build(unit=unit).sensitive_to == expected
    assert build(unit=unit, sensitive_to=["flip"]).sensitive_to == {"flip"}


def test_predictions_are_clipped_to_the_range_and_counted() -> None:
    task = build([10.0, 20.0, 30.0], range=[0, 40])
    cases = []
    for index, (truth, raw) in enumerate([(10.0, -5.0), (20.0, 21.0), (30.0, 55.0)]):
        result = task.result(torch.tensor([raw]), {})
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, truth, result, task.result_scores(result, truth)))
    assert [entry.result.cells("v") for entry in cases] == [{"v": 0.0}, {"v": 21.0}, {"v": 40.0}]
    mae = task.metrics(cases)["mae"]
    assert mae.value == pytest.approx((10 + 1 + 10) / 3)
    assert mae.extra == {"n_clipped": 2}
    assert [entry.scores["absolute_error"] for entry in cases] == [10.0, 1.0, 10.0]


def test_metrics_are_sklearns_and_skill_compares_with_the_training_median() -> None:
    generator = np.random.default_rng(0)
    truths = generator.normal(50, 10, 40)
    predicted = truths + generator.normal(0, 5, 40)
    task = build(truths.tolist(), unit="mm")
    cases = [
        ScoredCase(f"c{i}", f"p{i}", None, 0, t, task.result(torch.tensor([p], dtype=torch.float64), {}))
        for i, (t, p) in enumerate(zip(truths.tolist(), predicted.tolist(), strict=True))
    ]
    metrics = task.metrics(cases)
    assert metrics["mae"].value == pytest.approx(mean_absolute_error(truths, predicted))
    assert metrics["r2"].value == pytest.approx(r2_score(truths, predicted))
    constant = mean_absolute_error(truths, np.full(40, np.median(truths)))
    assert metrics["skill"].value == pytest.approx(1 - mean_absolute_error(truths, predicted) / constant)
    assert metrics["mae"].unit == "mm"
    assert metrics["mae"].ci95 is not None
    assert list(metrics) == ["mae", "rmse", "r2", "spearman", "skill", "slope", "bias", "loa_lower", "loa_upper"]
    assert metrics["slope"].value == pytest.approx(linregress(predicted, truths).slope)
    assert metrics["bias"].value == pytest.approx((predicted - truths).mean())
    assert (metrics["bias"].unit, metrics["slope"].unit) == ("mm", None)


def test_pooled_skill_compares_each_case_with_the_median_of_its_own_fold() -> None:
    low, high = build([1.0, 2.0, 9.0]), build([4.0, 5.0, 6.0])
    assert (low.reference(), high.reference()) == ({"training_median": 2.0}, {"training_median": 5.0})
    cases = []
    for index, (truth, raw) in enumerate([(1.0, 1.5), (4.0, 3.0), (7.0, 5.5), (9.0, 9.5)]):
        owner = (low, high)[index % 2]
        result = owner.result(torch.tensor([raw]), {})
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, index % 2, truth, result, reference=owner.reference()))
    # errors 0.5, 1, 1.5, 0.5; of the medians 1, 1, 5, 4
    assert low.metrics(cases)["skill"].value == pytest.approx(1 - 3.5 / 11)
    assert high.metrics(cases) == low.metrics(cases)
    # one model's cases are compared with its own median
    alone = [ScoredCase(c.case_id, c.patient, None, 0, c.truth, c.result) for c in cases]
    assert high.metrics(alone)["skill"].value == pytest.approx(1 - 3.5 / (4 + 1 + 2 + 4))


def test_another_unit_is_another_target() -> None:
    build(unit="ml").same_target(build(unit="ml", range=[0, 10]))
    with pytest.raises(ValueError, match="its unit is mm3, and the model's is ml"):
        build(unit="ml").same_target(build(unit="mm3"))
    with pytest.raises(ValueError, match="it is a segmentation, and the model's is a regression"):
        build().same_target(with_masks()[1])


def with_masks() -> tuple[Regression, Segmentation]:
    heart = Segmentation("heart", SegmentationOptions(kind="segmentation", column="label", labels={"lv": 1, "rv": 2}))
    options = RegressionOptions.model_validate(
        {
            "kind": "regression",
            "column": "value",
            "unit": "%",
            "derived_from": {"measure": "fraction", "part": "heart/lv", "whole": ["heart"]},
        }
    )
    plain = Regression("share", options)
    learned = {**plain.fit([10.0, 50.0, 60.0]), **plain.resolve({"heart": heart, "share": plain})}
    return Regression("share", options, json.loads(json.dumps(learned))), heart


def test_the_derived_value_is_scored_beside_the_head() -> None:
    task, _ = with_masks()
    array = np.zeros((5, 1, 1), np.uint8)
    array[:1], array[1:4] = 1, 2
    cases = []
    for index, mask in enumerate([array, np.zeros_like(array)]):
        result = task.result(torch.tensor([40.0]), {"heart": volume(mask)})
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, 30.0, result, task.result_scores(result, 30.0)))
    assert cases[0].result.cells("share") == {"share": 40.0, "share_derived": pytest.approx(25.0)}
    assert cases[1].result.cells("share") == {"share": 40.0, "share_derived": None}
    assert tuple(cases[0].result.cells("share")) == task.answer_columns
    assert cases[0].scores == {"absolute_error": 10.0, "absolute_error_derived": pytest.approx(5.0)}
    assert cases[1].scores["absolute_error_derived"] is None
    metrics = task.metrics(cases)
    assert (metrics["mae"].n, metrics["mae_derived"].n) == (2, 1)
    assert metrics["mae"].value == pytest.approx(10.0)
    assert metrics["mae_derived"].value == pytest.approx(5.0)
    assert metrics["mae_derived"].extra == {"n_undefined": 1}
    assert metrics["bias_derived"].value == pytest.approx(-5.0)
    figures = task.figures(cases)
    assert [(type(figure), figure.title) for figure in figures] == [
        (kind, f"share: {source}{end}")
        for source in ("predicted", "from the predicted mask")
        for kind, end in ((ScatterFigure, ""), (BlandAltmanFigure, " − observed"))
    ]
    assert task.metrics([])["mae_derived"].value is None


def test_a_bare_task_name_is_the_volume_of_its_foreground() -> None:
    _, heart = with_masks()
    task = build(unit="ml", derived_from="heart")
    assert task.resolve({"heart": heart}) == {"derived_labels": {"heart": [1, 2]}}


def test_an_unknown_structure_names_the_key() -> None:
    task = build(unit="ml", derived_from="liver")
    with pytest.raises(ValueError, match=r"tasks\.volume\.derived_from: 'liver'"):
        task.resolve({"volume": task})


def test_options_with_a_derivation_survive_a_dump() -> None:
    options = with_masks()[0].options
    assert RegressionOptions.model_validate(options.model_dump(mode="json")) == options


def test_an_undeclared_derived_value_has_no_column() -> None:
    assert RegressionResult(value=1.0).cells("v") == {"v": 1.0}


def test_the_uncertain_scale_is_mean_and_deviation_on_which_the_best_constant_loses_a_half() -> None:
    truths = [1.0, 2.0, 3.0, 4.0, 9.0, 30.0]
    task = build(truths, loss="beta_nll")
    assert task.fitted["mean"] == pytest.approx(np.mean(truths))
    assert task.fitted["spread"] == pytest.approx(np.std(truths))
    target = torch.stack([task.encode(truth) for truth in truths])

    def constant(mean: float, log_variance: float) -> float:
        return float(task.loss(torch.tensor([[mean, log_variance]]).expand(6, 2), target).mean())

    assert constant(0, 0) == pytest.approx(task.loss_scale, rel=1e-6)
    # the loss's own weight has no gradient, so that the best constant is where the plain likelihood is least
    plain = [
        -norm.logpdf(target.double().numpy(), mean, math.exp(log_variance / 2)).mean()
        for mean, log_variance in ((0, 0), (0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1))
    ]
    assert plain[0] == min(plain)


def test_only_the_likelihood_may_be_zero_or_negative() -> None:
    assert build().positive_loss
    task = build(loss="beta_nll")
    assert not task.positive_loss
    assert float(task.loss(torch.tensor([[0.0, -4.0]]), torch.tensor([0.0]))[0]) < 0


def test_an_answer_carries_its_interval_in_the_unit() -> None:
    task = build([1.0, 3.0, 5.0], loss="beta_nll", range=[0, 6])
    sd = task.fitted["spread"]
    (activation,) = task.activate(torch.tensor([[0.0, 2 * math.log(0.5)]]))
    result = task.result(activation, {})
    assert result.value == pytest.approx(3.0)
    assert result.sd == pytest.approx(0.5 * sd, rel=1e-5)
    assert result.interval == pytest.approx((3 - 1.959964 * 0.5 * sd, 3 + 1.959964 * 0.5 * sd), rel=1e-5)
    assert list(result.cells("v")) == ["v", "v_sd", "v_lower", "v_upper"]
    assert tuple(result.cells(task.name)) == task.answer_columns
    wide = task.result(task.activate(torch.tensor([[0.0, 2.0]]))[0], {})
    assert wide.interval == (0.0, 6.0)
    assert wide.sd == pytest.approx(math.e * sd, rel=1e-5)


def test_the_interval_of_a_logarithm_is_that_of_a_lognormal() -> None:
    task = build([1.0, 10.0, 100.0, 1000.0], loss="beta_nll", transform="log")
    result = task.result(task.activate(torch.tensor([[0.5, -1.0]]))[0], {})
    centre = task.fitted["mean"] + 0.5 * task.fitted["spread"]
    spread = math.exp(-0.5) * task.fitted["spread"]
    assert result.value == pytest.approx(math.exp(centre), rel=1e-5)
    assert result.interval == pytest.approx([math.exp(norm.ppf(q, centre, spread)) for q in (0.025, 0.975)], rel=1e-4)


def test_intervals_of_a_known_noise_cover_95_percent_of_it_and_are_scored() -> None:
    random = np.random.default_rng(0)
    noise = random.uniform(1, 10, 400)
    truths = random.normal(50, noise)
    task = build(truths.tolist(), loss="beta_nll", unit="mm")
    cases = []
    for index, (truth, sd) in enumerate(zip(truths.tolist(), noise.tolist(), strict=True)):
        half = 1.959964 * sd
        result = task.result(torch.tensor([50.0, 50 - half, 50 + half]), {})
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, truth, result))
    metrics = task.metrics(cases)
    assert next(iter(metrics)) == "mae"
    assert metrics["coverage_95"].value == pytest.approx(0.95, abs=0.02)
    assert metrics["interval_score_95"].unit == "mm"
    assert not {"coverage_95", "interval_score_95"} & build().metrics([]).keys()
    assert task.metrics([])["coverage_95"].value is None
