"""The survival task: options, what is learned, head, result and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.metrics.concordance import auc_at, harrell_c, uno_c
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.expected_width import ExpectedWidth, c_index_width
from medmtl.metrics.figures import Figure, KaplanMeierFigure
from medmtl.metrics.intervals import MINIMUM, BoolArray, FloatArray, IntArray, mean_estimate
from medmtl.metrics.kaplan_meier import StepCurve, censoring_curve, followed_to, kaplan_meier
from medmtl.metrics.survival_brier import brier_skill, integrated_brier
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import Cell, CellError, Doubt, Result, ScoredCase, Task
from medmtl.tasks.label_words import lowest_to_highest
from medmtl.tasks.learning import Samples
from medmtl.tasks.pooled import PooledOptions, PooledTask
from medmtl.tasks.survival.cox import Cox
from medmtl.tasks.survival.curve import SurvivalResult, grid_times, named, result_of
from medmtl.tasks.survival.doubt import mixed_units, strange_horizon
from medmtl.tasks.survival.hazards import Hazards
from medmtl.tasks.survival.objective import Objective
from medmtl.tasks.survival.outcome import Outcome, read_outcome

TERTILES = ("early", "middle", "late")


class SurvivalOptions(PooledOptions):
    """Options of a survival.

    Attributes:
        time: column of the time of the event, or of the end of follow-up, from its start; above 0, in any one unit.
        event: column that says which of the two it is: 1 for the event, 0 for the end of follow-up without it. Where
            both cells are empty, the case is not labelled.
        horizon: follow-up of interest, in the unit of ``time``: predictions are about the time up to it. Later events
            train and are ranked like others.
        max_time: longest possible follow-up; a time above it is refused as a slip of the pen or of the unit.
        loss: ``hazards``, a likelihood in discrete time, or ``cox``, the partial likelihood of proportional hazards
            with Breslow's baseline, which takes one row per patient.
        intervals: number of time intervals with a hazard each, under ``loss: hazards``; by default one per 10 events, 5
            to 20.
    """

    time: str
    event: str
    horizon: float = Field(gt=0, allow_inf_nan=False)
    max_time: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    loss: Literal["hazards", "cox"] = "hazards"
    intervals: int | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def _options_fit_together(self) -> SurvivalOptions:
        if self.time == self.event:
            raise ValueError(f"time and event are one column, {self.time!r}; name the column of each")
        if self.max_time is not None and self.max_time < self.horizon:
            raise ValueError(f"max_time {self.max_time:g} is below the horizon {self.horizon:g}")
        if self.loss == "cox" and self.intervals is not None:
            raise ValueError("intervals belongs to loss: hazards; drop it, or loss: cox")
        return self


class Survival(PooledTask):
    """The time to an event that not every patient had while followed, trained in discrete time or by Cox regression.

    Censored patients train what they lived through. :mod:`medmtl.tasks.survival.hazards` and
    :mod:`medmtl.tasks.survival.cox` say what the head answers and how it learns; what is predicted is the same, see
    :mod:`medmtl.tasks.survival.curve`.
    """

    kind = "survival"
    Options = SurvivalOptions
    options: SurvivalOptions
    default_sensitivity = ("crop",)
    ranking_metric = "c_index"
    may_lack = frozenset({"censored"})

    def __init__(self, name: str, options: SurvivalOptions, fitted: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, options, fitted)
        self.objective: Objective = (
            Cox(options.horizon, self.fitted)
            if options.loss == "cox"
            else Hazards(options.horizon, self.fitted, options.intervals)
        )
        self.positive_loss = self.objective.positive
        self.needs_finish = self.objective.needs_finish
        self.per_sample = self.objective.per_sample
        # two rows of a patient are two patients at risk to a partial likelihood
        self.rows_per_patient = "one" if options.loss == "cox" else "doubted"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the time and of the event."""
        return (self.options.time, self.options.event)

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`SurvivalResult.cells`."""
        return (self.name, f"{self.name}_median_time", f"{self.name}_s_{named(self.options.horizon)}")

    def read(self, case: Case) -> Outcome | None:
        """The time of a case with whether it is that of the event.

        Raises:
            CellError: see :func:`medmtl.tasks.survival.outcome.read_outcome`.
        """
        time, event = self.columns
        return read_outcome(case.cells[time], case.cells[event], time, event, self.options.max_time)

    def fit(self, truths: Sequence[Outcome]) -> dict[str, Any]:
        """What the loss needs, with its ``loss_scale``, and what metrics refer to.

        That is the Kaplan-Meier curve (``survival``) and that of censoring (``followed``) up to the horizon, and
        ``followed_to``, before which at least a tenth of the cases are at risk.

        Raises:
            CellError: B125 if no case has the event, or none that tells anything.
        """
        time_N, event_N = _arrays(truths)
        events = int(event_N.sum())
        if events == 0:
            found = f"{len(truths)} cases, all censored" if truths else "no case"
            expected, fix = "at least one event", "check which value means the event, or add cases; else drop the task"
            raise CellError("B125", column=self.options.event, found=found, expected=expected, fix=fix)
        learned = self.objective.fit(time_N, event_N)
        if not learned["loss_scale"] > 0:
            found, expected = f"{events} events, none at risk then", "an event that others outlive"
            fix = "add cases, or use loss: hazards"
            raise CellError("B125", column=self.options.event, found=found, expected=expected, fix=fix)
        return {
            **learned,
            "survival": self._stored(kaplan_meier(time_N, event_N)),
            **self._follow_up(time_N, event_N),
        }

    def _follow_up(self, time_N: FloatArray, event_N: BoolArray) -> dict[str, Any]:
        return {"followed": self._stored(censoring_curve(time_N, event_N)), "followed_to": followed_to(time_N)}

    def _stored(self, curve: StepCurve) -> dict[str, list[float]]:
        """A curve up to the horizon; nothing asks for it later."""
        kept = sum(time <= self.options.horizon for time in curve.times)
        return StepCurve(curve.times[:kept], curve.values[:kept]).to_json()

    def in_words(self, truths: Sequence[Outcome]) -> str:
        """How many have the event, and the shortest and longest time beside the horizon."""
        events, times = sum(outcome.event for outcome in truths), [outcome.time for outcome in truths]
        share = f"{events} with the event ({100 * events / len(truths):.0f} %)"
        return f"{share}, times {lowest_to_highest(times)}, horizon {named(self.options.horizon)}"

    def doubts(self, truths: Mapping[str, Any]) -> list[Doubt]:
        """Nobody censored (B126); times in two units, or in another one than the horizon (B128)."""
        found = []
        if truths and all(outcome.event for outcome in truths.values()):
            expected, fix = "patients without the event too", "check that who was lost to follow-up is in the table"
            found.append(Doubt("B126", self.options.event, f"{len(truths)} cases, all with the event", expected, fix))
        times = [outcome.time for outcome in truths.values()]
        units, horizon = mixed_units(times), strange_horizon(times, self.options.horizon)
        if units:
            text, fix = f"two groups of times: {units}", "write all times in one unit; unit mix?"
            found.append(Doubt("B128", self.options.time, text, "times in one unit", fix))
        if horizon:
            fix = f"give tasks.{self.name}.horizon in the unit of the column"
            found.append(Doubt("B128", self.options.time, horizon, "a horizon among the times", fix))
        return found

    def strata(self, truths: Mapping[str, Any]) -> dict[str, str]:
        """``censored``, or ``event``, with its third of the times where there are 30."""
        events = sorted(outcome.time for outcome in truths.values() if outcome.event)
        bounds = np.quantile(events, [1 / 3, 2 / 3]) if len(events) >= 3 * MINIMUM else None

        def stratum(outcome: Outcome) -> str:
            if not outcome.event:
                return "censored"
            return "event" if bounds is None else f"{TERTILES[int(np.searchsorted(bounds, outcome.time))]} event"

        return {name: stratum(outcome) for name, outcome in truths.items()}

    def same_target(self, other: Task) -> None:
        """The horizon must be the same; a different one is another unit, or another question."""
        super().same_target(other)
        assert isinstance(other, Survival)
        if other.options.horizon != self.options.horizon:
            raise ValueError(f"its horizon is {other.options.horizon:g}, and the model's is {self.options.horizon:g}")

    def encode(self, truth: Outcome | None) -> torch.Tensor:
        """Time and event, fp32, shape (2,); zeros, which no interval was lived with, for an unlabelled case."""
        return torch.tensor([0.0, 0.0] if truth is None else [truth.time, float(truth.event)])

    def head(self, spec: FeatureSpec) -> nn.Module:
        """What the loss learns; at first the best constant answer, whatever the image."""
        return self.pooled_head(spec, self.objective.first_output())

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Negative log likelihood per sample, under ``loss: cox`` with nobody at risk but these samples."""
        return self.objective.loss(output, target)

    def batch_loss(
        self, output: torch.Tensor, target: torch.Tensor, present_B: torch.Tensor, samples: Samples
    ) -> torch.Tensor:
        """Under ``loss: cox`` of the batch beside all cases of the last epoch."""
        return self.objective.batch_loss(output, target, present_B, samples)

    def extra_state(self) -> dict[str, Any]:
        """Under ``loss: cox`` the remembered risks, and the baseline once there is one."""
        return self.objective.extra_state()

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.objective.load_extra_state(state)

    def finish(self, output_NK: torch.Tensor, target_N: torch.Tensor) -> None:
        """Under ``loss: cox`` the baseline."""
        self.objective.finish(output_NK, target_N)

    @property
    def is_finished(self) -> bool:
        """Whether it can answer."""
        return self.objective.is_finished

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Probability to be without the event at each time of the horizon's grid, (B, GRID)."""
        return self.objective.curve(output)

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        """Predicted and true share of the horizon that is lost; a censored case's rest is that of Kaplan-Meier."""
        horizon = self.options.horizon
        time, event = min(float(target[0]), horizon), bool(target[1])
        lived = time
        if not event and time < horizon:
            rest = np.linspace(time, horizon, 101)
            survival = StepCurve.from_json(self.fitted["survival"]).at(rest)
            lived += float(np.trapezoid(survival, rest) / survival[0]) if survival[0] > 0 else 0.0
        return self.result(activation_K, {}).risk, 1 - lived / horizon

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> SurvivalResult:
        """Risk, median time and survival at the horizon."""
        return result_of(activation_K.tolist(), self.options.horizon)

    def constant_result(self, truths: Sequence[Outcome]) -> SurvivalResult:
        """The Kaplan-Meier curve of these."""
        return result_of(kaplan_meier(*_arrays(truths)).at(self._grid[1:]).tolist(), self.options.horizon)

    def truth_cells(self, truth: Outcome | None) -> dict[str, Cell]:
        """``NAME_true`` (the time) and ``NAME_true_event`` (0 or 1)."""
        time, event = (None, None) if truth is None else (truth.time, float(truth.event))
        return {f"{self.name}_true": time, f"{self.name}_true_event": event}

    def among_themselves(self, cases: Sequence[ScoredCase]) -> list[ScoredCase]:
        """With the censoring of these cases: that of the training fold says nothing of how long others were followed.

        The ``skill`` is still that to the training fold's Kaplan-Meier curve.
        """
        if not cases:
            return []
        own = Survival(self.name, self.options, {**self.fitted, **self._follow_up(*_arrays([c.truth for c in cases]))})
        return [replace(case, scores={**case.scores, **own.result_scores(case.result, case.truth)}) for case in cases]

    def result_scores(self, result: Result, truth: Any) -> dict[str, float | None]:
        """``brier_integrated``, that of the training fold's Kaplan-Meier curve, ``censoring_weight``, ``followed_to``.

        The grid ends at ``followed_to``, the last time at which a tenth of the training cases are at risk. The weight
        is 1 / G(T-), of an event by that time; None for all others, which are weighted by nobody. ``c_index_uno`` takes
        its square.
        """
        assert isinstance(result, SurvivalResult)
        time, event = truth
        followed = StepCurve.from_json(self.fitted["followed"])
        grid = self._grid[self._grid < self.fitted["followed_to"]]
        baseline = StepCurve.from_json(self.fitted["survival"]).at(grid)
        curve = np.array([1.0, *result.curve])[: len(grid)]
        counts = event and time <= min(self.options.horizon, self.fitted["followed_to"])
        before = followed.at(np.array([time]), before=True)[0] if counts else None
        enough = len(grid) > 1
        return {
            "brier_integrated": integrated_brier(curve, grid, time, event, followed) if enough else None,
            "brier_kaplan_meier": integrated_brier(baseline, grid, time, event, followed) if enough else None,
            "censoring_weight": None if before is None else float(1 / before),
            "followed_to": self.fitted["followed_to"],
        }

    @property
    def _grid(self) -> FloatArray:
        return grid_times(self.options.horizon)

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """Harrell's C first, with the number of events as ``n_events``; ``skill`` is of ``brier_integrated``."""
        time_N, event_N = _arrays([case.truth for case in cases])
        risk_N, fold_N = _risks(cases)
        weight_N = np.array([case.scores.get("censoring_weight") or 0.0 for case in cases], dtype=np.float64)
        patients = [case.patient for case in cases]
        harrell = harrell_c(time_N, event_N, risk_N, fold_N, patients)
        errors = [case.scores.get("brier_integrated") for case in cases]
        baseline = [case.scores.get("brier_kaplan_meier") for case in cases]
        scored = [index for index, error in enumerate(errors) if error is not None]
        return {
            "c_index": replace(harrell, extra={"n_events": int(event_N.sum())}),
            "c_index_uno": uno_c(time_N, event_N, risk_N, weight_N, fold_N, patients),
            "brier_integrated": mean_estimate(errors, patients, "lower"),
            "skill": brier_skill(
                np.array([errors[index] for index in scored], dtype=np.float64),
                np.array([baseline[index] for index in scored], dtype=np.float64),
                [patients[index] for index in scored],
            ),
            f"auc_{named(self.options.horizon)}": self._auc(cases, time_N, event_N, risk_N, weight_N, fold_N),
        }

    def _auc(
        self,
        cases: Sequence[ScoredCase],
        time_N: FloatArray,
        event_N: BoolArray,
        risk_N: FloatArray,
        weight_N: FloatArray,
        fold_N: IntArray,
    ) -> Estimate:
        """At the horizon; nothing where the cases that weights come from were not followed as far."""
        horizon = self.options.horizon
        # a case that is not scored yet is one of this model's
        ends = [case.scores.get("followed_to", self.fitted["followed_to"]) for case in cases]
        if any(end is None or end < horizon for end in ends):
            why = f"fewer than a tenth of the cases that weights come from are followed to {named(horizon)}"
            return Estimate(None, "higher", n=len(cases), why=why)
        return auc_at(horizon, time_N, event_N, risk_N, weight_N, fold_N, [case.patient for case in cases])

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """Of Harrell's C; see :func:`medmtl.metrics.expected_width.c_index_width`."""
        everybody = {patient for fold in folds for patient, _ in fold}
        return c_index_width(len(everybody), len({p for fold in folds for p, outcome in fold if outcome.event}))

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """Kaplan-Meier curves of the halves of lower and of higher predicted risk, by the median of each fold."""
        time_N, event_N = _arrays([case.truth for case in cases])
        risk_N, fold_N = _risks(cases)
        high_N = np.zeros(len(cases), dtype=np.bool_)
        for fold in np.unique(fold_N):
            rows = fold_N == fold
            high_N[rows] = risk_N[rows] > np.median(risk_N[rows])
        groups, followed = [], []
        for label, member_N in (("lower risk", ~high_N), ("higher risk", high_N)):
            if member_N.any():
                curve = kaplan_meier(time_N[member_N], event_N[member_N])
                times = (0.0, *curve.times, float(time_N[member_N].max()))
                values = (1.0, *curve.values, (1.0, *curve.values)[-1])
                groups.append((f"{label} ({int(member_N.sum())})", times, values))
                followed.append(tuple(time_N[member_N].tolist()))
        title = f"{self.name}: halves by predicted risk, split at the median of each fold"
        return (KaplanMeierFigure(title, tuple(groups), tuple(followed), self.options.time),)


def _arrays(outcomes: Sequence[Outcome]) -> tuple[FloatArray, BoolArray]:
    """Times and events."""
    time_N = np.array([outcome.time for outcome in outcomes], dtype=np.float64)
    return time_N, np.array([outcome.event for outcome in outcomes], dtype=np.bool_)


def _risks(cases: Sequence[ScoredCase]) -> tuple[FloatArray, IntArray]:
    """Predicted risks and folds."""
    results = [case.result for case in cases]
    risk_N = np.array([result.risk for result in results if isinstance(result, SurvivalResult)], dtype=np.float64)
    return risk_N, np.array([case.fold for case in cases], dtype=np.intp)
