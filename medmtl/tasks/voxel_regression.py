"""Voxel regression: a value per voxel, such as a dose, a depth, a distance or another modality."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.losses.deep_supervision import deep_supervision
from medmtl.losses.voxel_error import voxel_error_loss
from medmtl.metrics.estimate import Better, Estimate
from medmtl.metrics.expected_width import ExpectedWidth, mae_width
from medmtl.metrics.figures import Figure, ScatterFigure
from medmtl.metrics.intervals import mean_estimate
from medmtl.metrics.map_error import map_scores
from medmtl.networks.features import FeatureSpec
from medmtl.networks.voxel_head import VoxelHead
from medmtl.tasks.base import Cell, CellError, Result, ScoredCase, Sensitivity, Task, TaskOptions
from medmtl.tasks.voxel import MapTask

Finite = Annotated[float, Field(allow_inf_nan=False)]


class VoxelRegressionOptions(TaskOptions):
    """Options of a voxel regression.

    Attributes:
        column: column of the map files, on the grid of the case's first image.
        unit: of the values, such as Gy or mm; a map in mm is sensitive to scaling.
        range: values outside it are refused in files, and predictions are clipped to it; its width is the range of PSNR
            and SSIM, which otherwise is that of each reference map.
        mask: column of files that are not 0 where values count, in training and in scoring; None counts all voxels.
        loss: l1 and l2 are the mean absolute and squared error; l1_ssim adds 1 - SSIM to l1, for maps to be looked at.
    """

    column: str
    unit: str | None = None
    range: tuple[Finite, Finite] | None = None
    mask: str | None = None
    loss: Literal["l1", "l2", "l1_ssim"] = "l1"

    @model_validator(mode="after")
    def _consistent(self) -> VoxelRegressionOptions:
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range must be [lowest, highest], got {list(self.range)}")
        if self.mask == self.column:
            raise ValueError("mask: the mask cannot be the map itself")
        return self


@dataclass(frozen=True)
class VoxelRegressionResult(Result):
    """A map on the case's own grid.

    Attributes:
        mean: of all its voxels, in the task's unit.
    """

    mean: float = 0.0

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME_mean``."""
        return {f"{name}_mean": self.mean}


class VoxelRegression(MapTask):
    """One value per voxel, trained on a robust scale over the voxels that count.

    The head answers ``(value - median) / spread``, with median and interquartile range of the training fold's values,
    every case with equal weight (the standard deviation where more than half of the values are equal).
    """

    kind = "voxel_regression"
    Options = VoxelRegressionOptions
    options: VoxelRegressionOptions

    @property
    def sensitive_to(self) -> frozenset[Sensitivity]:
        """As declared; else scaling for a length in mm, which a larger image would have larger."""
        if self.options.sensitive_to is None and self.options.unit == "mm":
            return frozenset({"scale"})
        return super().sensitive_to

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of maps, and that of masks where declared."""
        return (self.options.column,) if self.options.mask is None else (self.options.column, self.options.mask)

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`VoxelRegressionResult.cells`."""
        return (f"{self.name}_mean",)

    @property
    def mask_column(self) -> str | None:
        """As declared."""
        return self.options.mask

    @property
    def value_range(self) -> tuple[float, float] | None:
        """As declared."""
        return self.options.range

    def read(self, case: Case) -> Path | None:
        """The map file, or None where the case has none.

        Raises:
            CellError: B094 if a map has no mask.
        """
        path = case.files.get(self.options.column)
        mask = self.options.mask
        if path is not None and mask is not None and mask not in case.files:
            if case.cells.get(mask) is not None:
                return None  # the file was refused with the table
            fix = "give the mask, or empty the cell of the map"
            raise CellError("B094", column=mask, found="an empty cell beside a map", expected="a mask", fix=fix)
        return path

    def fit(self, truths: Sequence[Any]) -> dict[str, Any]:
        """Median and spread of the values, their range, and the loss of answering the median everywhere.

        Args:
            truths: per case quantiles of the values that count, or the values themselves; a case may have none.

        Raises:
            CellError: B120 if all values are equal.
        """
        known = [np.asarray(truth, np.float64).ravel() for truth in truths]
        value = np.concatenate([found[~np.isnan(found)] for found in known]) if known else np.empty(0)
        if not value.size or np.ptp(value) == 0:
            found = f"maps of {len(known)} cases, all of one value" if value.size else "no value that counts"
            fix = "a constant cannot be learned; drop the task"
            raise CellError("B120", column=self.options.column, found=found, expected="values that differ", fix=fix)
        low, median, high = np.quantile(value, [0.25, 0.5, 0.75])
        spread = float(high - low) or float(value.std())
        scaled = (value - median) / spread
        constant = np.mean(scaled**2) if self.options.loss == "l2" else np.mean(np.abs(scaled))
        return {
            "median": float(median),
            "spread": spread,
            "data_range": float(np.ptp(value)),
            # a constant is like nothing, so that its SSIM is nearly 0
            "loss_scale": float(constant) + (1.0 if self.options.loss == "l1_ssim" else 0.0),
        }

    def same_target(self, other: Task) -> None:
        """The unit must be the same."""
        super().same_target(other)
        assert isinstance(other, VoxelRegression)
        if other.options.unit != self.options.unit:
            raise ValueError(f"its unit is {other.options.unit}, and the model's is {self.options.unit}")

    def encode(self, truth: Any) -> torch.Tensor:
        """Values (D, H, W) on the head's scale, fp32; NaN stays NaN."""
        values = torch.from_numpy(np.asarray(truth, np.float32))
        scaled: torch.Tensor = (values - self.fitted.get("median", 0.0)) / self.fitted.get("spread", 1.0)
        return scaled

    def head(self, spec: FeatureSpec) -> nn.Module:
        """One channel on the head's scale."""
        return VoxelHead(spec, 1)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """The declared error on the head's scale at every supervised level, shape (B,)."""
        low, high = self.options.range or (0.0, self.fitted.get("data_range", 1.0))
        spread = self.fitted.get("spread", 1.0)
        data_range, zero = (high - low) / spread, -self.fitted.get("median", 0.0) / spread

        def level(predicted_BCDHW: torch.Tensor, level_BDHW: torch.Tensor) -> torch.Tensor:
            return voxel_error_loss(predicted_BCDHW[:, 0], level_BDHW, self.options.loss, data_range, zero)

        with torch.autocast(target.device.type, enabled=False):
            return deep_supervision(level, output, target)

    def activate(self, output: Any) -> torch.Tensor:
        """Values (B, 1, D, H, W) in the task's unit: the scale differs between folds, the unit does not."""
        finest: torch.Tensor = output[0].float() * self.fitted["spread"] + self.fitted["median"]
        return finest

    def decide(self, probability_KDHW: torch.Tensor) -> torch.Tensor:
        """The values inside the range, fp32."""
        values = probability_KDHW[0].float()
        return values if self.options.range is None else values.clamp(*self.options.range)

    def result(self, mask: Volume) -> VoxelRegressionResult:
        """The map with its mean."""
        return VoxelRegressionResult(map=mask, mean=float(mask.array.astype(np.float64).mean()))

    def mask_scores(
        self, predicted: npt.NDArray[Any], truth: npt.NDArray[Any], spacing: Sequence[float]
    ) -> dict[str, float | None]:
        """See :func:`medmtl.metrics.map_error.map_scores`."""
        limits = self.options.range
        return dataclasses.asdict(map_scores(predicted, truth, None if limits is None else limits[1] - limits[0]))

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """Means over cases of what is computed per case, with BCa intervals over patients; MAE first."""
        patients = [case.patient for case in cases]
        unit = self.options.unit
        kinds: Mapping[str, tuple[Better, str | None]] = {
            "mae": ("lower", unit),
            "rmse": ("lower", unit),
            "psnr": ("higher", "dB"),
            "ssim": ("higher", None),
        }
        return {
            metric: mean_estimate([case.scores[metric] for case in cases], patients, better, own)
            for metric, (better, own) in kinds.items()
        }

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """Of the mean absolute error; see :func:`medmtl.metrics.expected_width.mae_width`."""
        return mae_width(len({patient for fold in folds for patient, _ in fold}))

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """Each case's predicted mean against the mean of its reference, over the voxels that count."""
        pairs = [(case.scores["mean_true"], case.scores["mean"]) for case in cases]
        known = [(true, mean) for true, mean in pairs if true is not None and mean is not None]
        observed, predicted = tuple(true for true, _ in known), tuple(mean for _, mean in known)
        return (ScatterFigure(f"{self.name}: mean of the map", observed, predicted, self.options.unit),)
