"""Encoders: one file per kind, one line here; and what lies between encoder and head."""

from __future__ import annotations

from medmtl.networks.unet import UnetEncoder
from medmtl.registry import Registry

kinds: Registry[UnetEncoder] = Registry("network")
kinds.add(UnetEncoder)

__all__ = ["UnetEncoder", "kinds"]
