"""Weighting kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.weighting.base import Trained, Weighting
from medmtl.weighting.equal import Equal
from medmtl.weighting.fixed import Fixed

kinds: Registry[Weighting] = Registry("weighting")
kinds.add(Equal)
kinds.add(Fixed)

__all__ = ["Equal", "Fixed", "Trained", "Weighting", "kinds"]
