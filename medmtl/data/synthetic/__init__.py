"""Synthetic tumour cohorts: textured scans, lesion masks, and outcomes that follow from the image by known formulas."""

from medmtl.data.synthetic.cohort import refuse_filled, write_cohort

__all__ = ["refuse_filled", "write_cohort"]
