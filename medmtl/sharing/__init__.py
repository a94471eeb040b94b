"""Sharing kinds: one file per kind, one line here."""

from __future__ import annotations

from medmtl.registry import Registry
from medmtl.sharing.base import Sharing
from medmtl.sharing.hard import Hard

kinds: Registry[Sharing] = Registry("sharing")
kinds.add(Hard)

__all__ = ["Hard", "Sharing", "kinds"]
