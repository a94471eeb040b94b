"""Questions about a training, each answered by running some of it."""

from __future__ import annotations

from medmtl.studies.profile import StepProfile, profile_steps

__all__ = ["StepProfile", "profile_steps"]
