"""Weighting kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.weighting.aligned import Aligned
from medmtl.weighting.base import Weighting
from medmtl.weighting.cagrad import Cagrad
from medmtl.weighting.conflict_free import ConflictFree
from medmtl.weighting.db_mtl import DbMtl
from medmtl.weighting.dual_cone import Dualproj, Upgrad
from medmtl.weighting.dwa import Dwa
from medmtl.weighting.equal import Equal
from medmtl.weighting.fairness import Fairgrad, Nash
from medmtl.weighting.famo import Famo
from medmtl.weighting.fixed import Fixed
from medmtl.weighting.gls import GeometricMean
from medmtl.weighting.graddrop import Graddrop
from medmtl.weighting.gradnorm import Gradnorm
from medmtl.weighting.gradvac import Gradvac
from medmtl.weighting.imtl_g import ImtlG
from medmtl.weighting.imtl_l import ImtlL
from medmtl.weighting.mgda import Mgda
from medmtl.weighting.pcd import Pcd
from medmtl.weighting.pcgrad import Pcgrad
from medmtl.weighting.rlw import RandomWeights
from medmtl.weighting.stch import Stch
from medmtl.weighting.uncertainty import Uncertainty

kinds: Registry[Weighting] = Registry(
    "weighting",
    Equal, Fixed,
    Uncertainty, Dwa, RandomWeights, GeometricMean, ImtlL, Stch, Famo,
    Pcgrad, Gradvac, Graddrop, Mgda, Cagrad, Nash, Fairgrad, ImtlG, Aligned, ConflictFree, Upgrad, Dualproj, Pcd,
    Gradnorm, DbMtl,
)  # fmt: skip

__all__ = ["kinds"]
