"""From feature maps to one answer per case: ways to pool a map, one file each, and the head on them."""

from __future__ import annotations

from medmtl.networks.pooling.head import GAIN, POOLINGS, PooledHead, RunningStandardisation

__all__ = ["GAIN", "POOLINGS", "PooledHead", "RunningStandardisation"]
