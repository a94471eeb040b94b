"""A task kind as a researcher would bring it: one file, registered, and nothing else changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.metrics import regression
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.figures import Figure, ScatterFigure
from medmtl.networks.features import FeatureSpec
from medmtl.networks.pooling import PooledHead
from medmtl.tasks.base import CaseTask, Cell, CellError, Result, ScoredCase, TaskOptions

MAX_LOG = 80.0  # e^80 is finite in fp32


class CountOptions(TaskOptions):
    """Options of a count.

    Attributes:
        column: holds a whole number from 0.
    """

    column: str


@dataclass(frozen=True)
class CountResult(Result):
    """The expected count."""

    expected: float = math.nan

    def cells(self, name: str) -> dict[str, Cell]:
        return {name: self.expected}


class Count(CaseTask):
    """A Poisson regression: the head answers the logarithm of the expected count."""

    kind = "count"
    Options = CountOptions
    options: CountOptions

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.options.column,)

    def read(self, case: Case) -> int | None:
        cell = case.cells[self.options.column]
        if cell is not None and not (cell.isascii() and cell.isdigit()):
            raise self._refusal("B119", cell, "a whole number from 0")
        return None if cell is None else int(cell)

    def _refusal(self, code: str, found: str, expected: str) -> CellError:
        return CellError(code, column=self.options.column, found=found, expected=expected, fix="correct it")

    def fit(self, truths: Sequence[int]) -> dict[str, Any]:
        if len(set(truths)) < 2:
            raise self._refusal("B120", "values that are all equal", "values that differ")
        count_N = torch.tensor(truths, dtype=torch.float32)
        log_mean = count_N.mean().log()
        return {
            "log_mean": float(log_mean),
            "loss_scale": float(deviance(log_mean.expand(len(truths)), count_N).mean()),
        }

    def encode(self, truth: int | None) -> torch.Tensor:
        return torch.tensor(float(truth or 0))

    def head(self, spec: FeatureSpec) -> nn.Module:
        return PooledHead(spec, [self.fitted["log_mean"]])

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return deviance(output[:, 0].float(), target)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        return output.float().clamp(max=MAX_LOG).exp()

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        return float(activation_K[0]), float(target)

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> CountResult:
        return CountResult(expected=float(activation_K[0]))

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        observed, expected = np.array([case.truth for case in cases], float), np.array(self._expected(cases), float)
        patients = [case.patient for case in cases]
        return {
            "mae": regression.mae(observed, expected, patients),
            "spearman": regression.spearman(observed, expected, patients),
        }

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        observed = tuple(float(case.truth) for case in cases)
        return (ScatterFigure(f"{self.name}: expected count", observed, tuple(self._expected(cases))),)

    def _expected(self, cases: Sequence[ScoredCase]) -> list[float]:
        return [case.result.expected for case in cases if isinstance(case.result, CountResult)]


def deviance(log_mean_B: torch.Tensor, count_B: torch.Tensor) -> torch.Tensor:
    """Poisson deviance 2 (y log(y / m) - y + m) per sample; 0 for a perfect answer."""
    mean_B = log_mean_B.clamp(max=MAX_LOG).exp()
    value: torch.Tensor = 2 * (torch.special.xlogy(count_B, count_B) - count_B * log_mean_B - count_B + mean_B)
    return value
