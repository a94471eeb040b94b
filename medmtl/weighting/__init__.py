"""Weighting kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.weighting.base import Trained, Weighting
from medmtl.weighting.dwa import Dwa
from medmtl.weighting.equal import Equal
from medmtl.weighting.famo import Famo
from medmtl.weighting.fixed import Fixed
from medmtl.weighting.gls import GeometricMean
from medmtl.weighting.imtl_l import ImtlL
from medmtl.weighting.rlw import RandomWeights
from medmtl.weighting.stch import Stch
from medmtl.weighting.uncertainty import Uncertainty

kinds: Registry[Weighting] = Registry("weighting")
kinds.add(Equal)
kinds.add(Fixed)
kinds.add(Uncertainty)
kinds.add(Dwa)
kinds.add(RandomWeights)
kinds.add(GeometricMean)
kinds.add(ImtlL)
kinds.add(Stch)
kinds.add(Famo)

__all__ = ["Equal", "Fixed", "Trained", "Weighting", "kinds"]
