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

kinds: Registry[Sharing] = Registry("sharing", Hard, Soft, CrossStitch, Mtan, Mmoe, Ple, Adapters)

__all__ = ["kinds"]
