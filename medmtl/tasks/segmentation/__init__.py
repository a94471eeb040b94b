"""Segmentation: one label, or a set of overlapping regions, per voxel."""

from __future__ import annotations

from medmtl.tasks.segmentation.options import SegmentationOptions
from medmtl.tasks.segmentation.task import Segmentation, SegmentationResult

__all__ = ["Segmentation", "SegmentationOptions", "SegmentationResult"]
