"""Survival: the time to an event, also of patients in whom it was not seen."""

from __future__ import annotations

from medmtl.tasks.survival.curve import SurvivalResult
from medmtl.tasks.survival.outcome import Outcome
from medmtl.tasks.survival.task import Survival, SurvivalOptions

__all__ = ["Outcome", "Survival", "SurvivalOptions", "SurvivalResult"]
