"""Synthetic tumour cohorts: textured scans, lesion masks, and outcomes that follow from the image by known formulas."""

from medmtl.data.synthetic.cohort import write_cohort

__all__ = ["write_cohort"]
