"""Task kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.regression import Regression
from medmtl.tasks.segmentation import Segmentation
from medmtl.tasks.voxel_regression import VoxelRegression

kinds: Registry[Task] = Registry("tasks")
kinds.add(Segmentation)
kinds.add(Classification)
kinds.add(Regression)
kinds.add(VoxelRegression)

__all__ = ["Classification", "Regression", "Segmentation", "Task", "VoxelRegression", "kinds"]
