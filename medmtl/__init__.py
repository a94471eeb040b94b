"""Joint segmentation, classification and regression on cohorts of 3D scans with partly missing labels.

Importing the package is cheap: the library behind these names, and torch with it, is loaded when one is first used.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from medmtl import errors

if TYPE_CHECKING:
    from medmtl.api import (
        check,
        check_report,
        demo,
        evaluate,
        kinds,
        load,
        plan,
        predict,
        profile,
        register,
        report,
        synth,
        train,
    )
    from medmtl.errors import MedmtlError
    from medmtl.loaded import Model

__version__ = "0.1.0"

ELSEWHERE = {"MedmtlError": "medmtl.errors", "Model": "medmtl.loaded"}

__all__ = [
    "MedmtlError",
    "Model",
    "__version__",
    "check",
    "check_report",
    "demo",
    "evaluate",
    "kinds",
    "load",
    "plan",
    "predict",
    "profile",
    "register",
    "report",
    "synth",
    "train",
]


def _later(name: str, /, *arguments: object, **options: object) -> NoReturn:
    raise errors.not_in_this_version(f"medmtl.{name}")


def __getattr__(name: str) -> Any:
    if name in errors.LATER:
        return partial(_later, name)
    if name not in __all__:
        raise AttributeError(f"module 'medmtl' has no attribute {name!r}")
    return getattr(import_module(ELSEWHERE.get(name, "medmtl.api")), name)
