"""Task kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.errors import InputError
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

kinds: Registry[Task] = Registry(
    "tasks", Segmentation, Classification, Multilabel, Ordinal, Regression, Survival, VoxelRegression, Detection
)


def register(kind: type[Task]) -> type[Task]:
    """Add a kind that is not of this package; see :func:`medmtl.api.register`."""
    if not _is_kind(kind):
        raise InputError(f"a task kind is a subclass of medmtl.tasks.base.Task with a text as its kind, found {kind!r}")
    return kinds.add(kind)


def _is_kind(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Task) and isinstance(getattr(given, "kind", None), str)


__all__ = ["kinds", "register"]
