"""The regression task: cells, head, result and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medmtl.data.case import Case
from medmtl.data.cell import number, number_fault
from medmtl.data.volume import Volume
from medmtl.metrics import agreement, prediction_interval, regression
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.expected_width import ExpectedWidth, mae_width
from medmtl.metrics.figures import Figure, ScatterFigure
from medmtl.metrics.intervals import Z95
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import Cell, CellError, Doubt, Result, ScoredCase, Sensitivity, Task
from medmtl.tasks.label_words import lowest_to_highest, middle
from medmtl.tasks.pooled import PooledTask
from medmtl.tasks.regression.derived import derive, resolve_structures
from medmtl.tasks.regression.doubt import FAR, outliers, repeated_extremes, shares_for_percentages
from medmtl.tasks.regression.objective import objective_of
from medmtl.tasks.regression.options import RegressionOptions

SIZE_UNITS = ("mm", "mm3", "ml")
MAX_EXPONENT = 80.0  # e^80 is finite in fp32


@dataclass(frozen=True)
class RegressionResult(Result):
    """A value, and the same quantity measured on predicted masks.

    Attributes:
        value: in the task's unit, inside its range.
        clipped: whether the prediction lay outside the range.
        derived: from the predicted masks; None where it is undefined or not declared.
        derives: whether it is declared.
        interval: bounds of the predicted 95 % interval, in the task's unit and inside its range; None where the loss
            learns no uncertainty.
        sd: its width, before it was brought inside the range, over 2 x 1.96: under ``transform: none`` the predicted
            standard deviation.
    """

    value: float = math.nan
    clipped: bool = False
    derived: float | None = None
    derives: bool = False
    interval: tuple[float, float] | None = None
    sd: float | None = None

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME``; ``NAME_sd``, ``NAME_lower`` and ``NAME_upper`` where predicted; ``NAME_derived`` where declared."""
        cells: dict[str, Cell] = {name: self.value}
        if self.interval is not None:
            lower, upper = self.interval
            cells.update({f"{name}_sd": self.sd, f"{name}_lower": lower, f"{name}_upper": upper})
        return {**cells, **({f"{name}_derived": self.derived} if self.derives else {})}


class Regression(PooledTask):
    """One value per case, trained by a Huber loss on a robust scale, or with its own uncertainty by a likelihood.

    The head answers ``(transform(value) - centre) / spread``, with the training fold's median and interquartile range
    of the transformed values (the standard deviation where more than half of them are equal) under ``loss: huber``, and
    with their mean and standard deviation, and a log-variance besides, under ``loss: beta_nll``.
    """

    kind = "regression"
    Options = RegressionOptions
    options: RegressionOptions
    default_sensitivity = ("crop",)

    def __init__(self, name: str, options: RegressionOptions, fitted: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, options, fitted)
        self.objective = objective_of(options.loss, options.huber_delta)
        self.positive_loss = self.objective.positive

    @property
    def sensitive_to(self) -> frozenset[Sensitivity]:
        """As declared; else cropping, and scaling too for a size in mm, mm3 or ml."""
        if self.options.sensitive_to is None and self.options.unit in SIZE_UNITS:
            return frozenset({"scale", "crop"})
        return super().sensitive_to

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the value."""
        return (self.options.column,)

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`RegressionResult.cells`."""
        interval = ("_sd", "_lower", "_upper") if self.objective.outputs > 1 else ()
        derived = () if self.options.derivation is None else ("_derived",)
        return tuple(f"{self.name}{part}" for part in ("", *interval, *derived))

    def read(self, case: Case) -> float | None:
        """The value of a case.

        Raises:
            CellError: if the cell is no plain decimal number: B006 for a decimal comma or thousands apart, B116 for a
                word that means "missing", B118 for several numbers, B119 for anything else. B121 if the value is out of
                range.
        """
        cell = case.cells[self.options.column]
        if cell is None:
            return None
        value = number(cell)
        if value is None:
            code, fix = number_fault(cell, "the case is not labelled")
            raise self._refusal(code, cell, "a number such as 12.5 or 1e-3", fix)
        low, high = self.options.range or (-math.inf, math.inf)
        if not low <= value <= high:
            expected, fix = f"a value in {low:g} to {high:g}", f"correct the cell or tasks.{self.name}.range"
            raise self._refusal("B121", cell, expected, fix)
        if self.options.transform == "logit" and value in (low, high):
            raise self._refusal("B121", cell, f"a value inside {low:g} to {high:g}", "use transform: none")
        if self.options.transform == "log" and value <= 0:
            raise self._refusal("B121", cell, "a value above 0", "use transform: none")
        return value

    def _refusal(self, code: str, found: str, expected: str, fix: str) -> CellError:
        return CellError(code, column=self.options.column, found=found, expected=expected, fix=fix)

    def fit(self, truths: Sequence[float]) -> dict[str, Any]:
        """Centre and spread of the transformed values, the median value, and the ``loss_scale``.

        Raises:
            CellError: B120 if all values are equal.
        """
        if len(set(truths)) < 2:
            found = f"{len(truths)} values, all equal" if truths else "no value"
            raise self._refusal("B120", found, "values that differ", "a constant cannot be learned; drop the task")
        learned = self.objective.fit(np.array([self._transform(value) for value in truths]))
        return {"median_value": float(np.median(truths)), **learned}

    def in_words(self, truths: Sequence[float]) -> str:
        """The lowest, the highest and the median value, beside the declared range."""
        low, high = self.options.range or (None, None)
        bounds = f" (range {low:g} to {high:g})" if low is not None else ""
        unit = f" {self.options.unit}" if self.options.unit else ""
        return f"{lowest_to_highest(truths)}, {middle(truths)}{unit}{bounds}"

    def doubts(self, truths: Mapping[str, Any]) -> list[Doubt]:
        """A repeated extreme that may stand for "missing" (B121), values far from all others (B122), and shares (B128).

        Shares of 1, that is, where the range of percentages is declared.
        """
        column = self.options.column
        found = {name: self._transform(value) for name, value in truths.items()}
        extremes = repeated_extremes(truths.values())
        doubts = [
            Doubt(
                "B121",
                column,
                f"{extreme:g} in {count} rows, an extreme",
                "measured values",
                "list it in cohort.missing if it means that the value is missing",
            )
            for extreme, count in extremes.items()
        ]
        if shares_for_percentages(truths.values(), self.options.range):
            fix = "percentages written as shares of 1? multiply them by 100, or declare range: [0, 1]"
            doubts.append(Doubt("B128", column, f"{len(truths)} values, none above 1", "values of 0 to 100", fix))
        rest = {name: value for name, value in found.items() if truths[name] not in extremes}
        expected, fix = f"values within {FAR:g} MAD of the median", "check the value and its unit"
        return doubts + [
            Doubt("B122", column, f"{truths[name]:g}, {mads:.0f} MAD away", expected, fix, name)
            for name, mads in outliers(rest).items()
        ]

    def same_target(self, other: Task) -> None:
        """The unit must be the same."""
        super().same_target(other)
        assert isinstance(other, Regression)
        if other.options.unit != self.options.unit:
            raise ValueError(f"its unit is {other.options.unit}, and the model's is {self.options.unit}")

    def strata(self, truths: Mapping[str, Any]) -> dict[str, str]:
        """Each case's quarter of the values."""
        bounds = np.quantile(list(truths.values()), [0.25, 0.5, 0.75])
        return {name: f"quarter {np.searchsorted(bounds, value) + 1}" for name, value in truths.items()}

    def resolve(self, others: Mapping[str, Task]) -> dict[str, Any]:
        """``derived_labels``: the label values of every structure that the value is derived from."""
        found = super().resolve(others)
        derivation = self.options.derivation
        if derivation is None:
            return found
        try:
            return {**found, "derived_labels": resolve_structures(derivation.structures(), others)}
        except ValueError as error:
            raise ValueError(f"tasks.{self.name}.derived_from: {error}") from None

    def encode(self, truth: float | None) -> torch.Tensor:
        """The value on the head's scale, fp32, shape ()."""
        if truth is None:
            return torch.tensor(0.0)
        return torch.tensor((self._transform(truth) - self._centre) / self.fitted["spread"])

    @property
    def _centre(self) -> float:
        return float(self.fitted[self.objective.centre])

    def _transform(self, value: float) -> float:
        if self.options.transform == "log":
            return math.log(value)
        if self.options.transform == "logit":
            assert self.options.range is not None
            low, high = self.options.range
            return math.log((value - low) / (high - value))
        return value

    def head(self, spec: FeatureSpec) -> nn.Module:
        """(B, 1) on the head's scale, and a log-variance beside it under ``beta_nll``: (B, 2).

        At first 0, the centre of the training values, whatever the image; likewise their variance, whose log is 0.
        """
        return self.pooled_head(spec, [0.0] * self.objective.outputs)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss per sample on the head's scale; see :mod:`medmtl.tasks.regression.objective`."""
        return self.objective.loss(output, target)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Values (B, 1) in the task's unit: the scale differs between folds, the unit does not. Not yet clipped.

        Under ``beta_nll`` (B, 3): the median and the bounds of the 95 % interval. What is averaged over folds and flips
        are thus quantiles, which is a distribution again (Ratcliff 1979, https://doi.org/10.1037/0033-2909.86.3.446).
        """
        return self._in_unit(self.objective.quantiles(output))

    def _in_unit(self, scaled: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = scaled.float() * self.fitted["spread"] + self._centre
        if self.options.transform == "log":
            return value.clamp(max=MAX_EXPONENT).exp()
        if self.options.transform == "logit":
            assert self.options.range is not None
            low, high = self.options.range
            return low + (high - low) * value.sigmoid()
        return value

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        """Predicted and true value in the task's unit."""
        return float(activation_K[0]), float(self._in_unit(target))

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> RegressionResult:
        """The clipped value, its interval where the loss learns one, and the derived value where declared."""
        raw, *bounds = activation_K.tolist()
        low, high = self.options.range or (-math.inf, math.inf)
        value, *inside = (min(max(found, low), high) for found in (raw, *bounds))
        found = RegressionResult(value=value, clipped=value != raw)
        if bounds:
            lower, upper = bounds
            found = replace(found, interval=(inside[0], inside[1]), sd=(upper - lower) / (2 * Z95))
        derivation = self.options.derivation
        if derivation is None:
            return found
        derived = derive(derivation, self.options.unit, self.fitted["derived_labels"], masks)
        return replace(found, derived=derived, derives=True)

    def reference(self) -> dict[str, float]:
        """``training_median``, the constant that ``skill`` compares with."""
        return {"training_median": self.fitted["median_value"]}

    def result_scores(self, result: Result, truth: Any) -> dict[str, float | None]:
        """``absolute_error``, and ``absolute_error_derived`` where declared."""
        assert isinstance(result, RegressionResult)
        scores: dict[str, float | None] = {"absolute_error": abs(result.value - truth)}
        if result.derives:
            scores["absolute_error_derived"] = None if result.derived is None else abs(result.derived - truth)
        return scores

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """MAE first; with ``derived_from`` the same metrics of the derived value as ``METRIC_derived``.

        Where an interval is predicted, also its coverage and its score.

        ``mae`` carries ``n_clipped``. A case whose derived value is undefined does not enter the derived metrics;
        ``mae_derived`` carries their number as ``n_undefined``.
        """
        results = [_result(case) for case in cases]
        estimates = self._estimates(cases, [result.value for result in results])
        estimates["mae"] = replace(estimates["mae"], extra={"n_clipped": sum(result.clipped for result in results)})
        if self.options.derivation is not None:
            defined = [(case, r.derived) for case, r in zip(cases, results, strict=True) if r.derived is not None]
            derived = self._estimates([case for case, _ in defined], [value for _, value in defined])
            derived["mae"] = replace(derived["mae"], extra={"n_undefined": len(cases) - len(defined)})
            estimates.update({f"{metric}_derived": estimate for metric, estimate in derived.items()})
        return {**estimates, **(self._of_intervals(cases) if self.objective.outputs > 1 else {})}

    def _of_intervals(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        observed_N = np.array([case.truth for case in cases], dtype=np.float64)
        bounds = [result.interval for result in map(_result, cases) if result.interval is not None]
        lower_N, upper_N = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
        patients, unit = [case.patient for case in cases], self.options.unit
        return {
            "coverage_95": prediction_interval.coverage(observed_N, lower_N, upper_N, patients),
            "interval_score_95": prediction_interval.interval_score(observed_N, lower_N, upper_N, patients, unit),
        }

    def _estimates(self, cases: Sequence[ScoredCase], values: Sequence[float]) -> dict[str, Estimate]:
        observed = np.array([case.truth for case in cases], dtype=np.float64)
        predicted: npt.NDArray[np.float64] = np.array(values, dtype=np.float64)
        patients = [case.patient for case in cases]
        unit = self.options.unit
        # a case without a fold's own median is one of this model's
        median = np.array([{**self.reference(), **case.reference}["training_median"] for case in cases], np.float64)
        return {
            "mae": regression.mae(observed, predicted, patients, unit),
            "rmse": regression.rmse(observed, predicted, patients, unit),
            "r2": regression.r2(observed, predicted, patients),
            "spearman": regression.spearman(observed, predicted, patients),
            "skill": regression.skill(observed, predicted, median, patients),
            "slope": agreement.calibration_slope(observed, predicted, patients),
            **agreement.bland_altman(observed, predicted, patients, unit),
        }

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """Of the mean absolute error; see :func:`medmtl.metrics.expected_width.mae_width`."""
        return mae_width(len({patient for fold in folds for patient, _ in fold}))

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """Predicted against observed, and their difference against their mean; likewise derived where declared."""
        results = [_result(case) for case in cases]
        pairs = [("predicted", case.truth, result.value) for case, result in zip(cases, results, strict=True)]
        pairs += [
            ("from the predicted mask", case.truth, result.derived)
            for case, result in zip(cases, results, strict=True)
            if result.derived is not None
        ]
        figures: list[Figure] = []
        for source in dict.fromkeys(named for named, _, _ in pairs):
            observed = tuple(float(truth) for named, truth, _ in pairs if named == source)
            predicted = tuple(value for named, _, value in pairs if named == source)
            figures.append(ScatterFigure(f"{self.name}: {source}", observed, predicted, self.options.unit))
            title = f"{self.name}: {source} − observed"
            figures.append(agreement.bland_altman_figure(title, observed, predicted, self.options.unit))
        return tuple(figures)


def _result(case: ScoredCase) -> RegressionResult:
    assert isinstance(case.result, RegressionResult)
    return case.result
