"""Task kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification
from medmtl.tasks.detection import Detection
from medmtl.tasks.multilabel import Multilabel
from medmtl.tasks.ordinal import Ordinal
from medmtl.tasks.regression import Regression
from medmtl.tasks.segmentation import Segmentation
from medmtl.tasks.survival import Survival
from medmtl.tasks.voxel_regression import VoxelRegression

kinds: Registry[Task] = Registry("tasks")
kinds.add(Segmentation)
kinds.add(Classification)
kinds.add(Multilabel)
kinds.add(Ordinal)
kinds.add(Regression)
kinds.add(Survival)
kinds.add(VoxelRegression)
kinds.add(Detection)

__all__ = [
    "Classification",
    "Detection",
    "Multilabel",
    "Ordinal",
    "Regression",
    "Segmentation",
    "Survival",
    "Task",
    "VoxelRegression",
    "kinds",
]
