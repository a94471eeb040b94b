"""Every row, every file and every rule in one pass; nothing trains before it is clean.

The table's form is checked by :mod:`medmtl.data.cohort`; here its files are opened, its targets parsed, and the cohort
is looked at as a whole.
"""

from __future__ import annotations

from medmtl.checking.checked import Checked
from medmtl.checking.expectation import Expectation, expectations
from medmtl.checking.one_pass import check_cohort
from medmtl.checking.targets import layout, read_targets

__all__ = ["Checked", "Expectation", "check_cohort", "expectations", "layout", "read_targets"]
