"""Sharing kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.sharing.adapters import Adapters
from medmtl.sharing.base import Sharing
from medmtl.sharing.cross_stitch import CrossStitch
from medmtl.sharing.hard import Hard
from medmtl.sharing.mmoe import Mmoe
from medmtl.sharing.mtan import Mtan
from medmtl.sharing.ple import Ple
from medmtl.sharing.soft import Soft

kinds: Registry[Sharing] = Registry("sharing")
kinds.add(Hard)
kinds.add(Soft)
kinds.add(CrossStitch)
kinds.add(Mtan)
kinds.add(Mmoe)
kinds.add(Ple)
kinds.add(Adapters)

__all__ = ["Adapters", "CrossStitch", "Hard", "Mmoe", "Mtan", "Ple", "Sharing", "Soft", "kinds"]
