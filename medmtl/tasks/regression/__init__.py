"""Regression: one value per case, beside what the same quantity measures on predicted masks."""

from __future__ import annotations

from medmtl.tasks.regression.options import RegressionOptions
from medmtl.tasks.regression.task import Regression, RegressionResult

__all__ = ["Regression", "RegressionOptions", "RegressionResult"]
