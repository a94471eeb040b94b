"""Encoders: one file per kind, one line here; and what lies between encoder and head."""

from __future__ import annotations

from medmtl.networks.encoder import Encoder
from medmtl.networks.resenc import ResencEncoder
from medmtl.networks.segresnet import SegresnetEncoder
from medmtl.networks.unet import UnetEncoder
from medmtl.registry import Registry

kinds: Registry[Encoder] = Registry("network", UnetEncoder, ResencEncoder, SegresnetEncoder)

__all__ = ["kinds"]
