"""From feature maps to one answer per case: ways to pool a map, one file each, and the head on them."""

from __future__ import annotations

from medmtl.networks.pooling.head import GAIN, POOLINGS, PooledHead
from medmtl.networks.pooling.running import RunningStandardisation

__all__ = ["GAIN", "POOLINGS", "PooledHead", "RunningStandardisation"]
