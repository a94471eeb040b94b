"""Every row, every file and every rule in one pass; nothing trains before it is clean.

The table's form is checked by :mod:`medmtl.data.cohort`; here its targets are parsed, the cohort is divided and looked
at as a whole, and its files are opened. ``one_pass`` calls what sees

- the tables, by all their rows: ``sources``, ``targets``, ``box_tables``, ``whole``, ``patients``, ``covariates``,
  ``division``, ``channels``;
- the files of one case, opened by ``opening``: ``files`` with ``grids``, ``labels``, ``maps``, ``boxes`` and
  ``box_rows``, or ``headers`` instead of ``files``;
- what was seen of the files of all cases: ``duplicates``, ``population``, and ``whole`` once more.

``checked`` is the result. ``expectation`` and ``label_summary`` say what it lets hope for and what was read, ``known``
compares cases with those that a run has seen, and ``outputs`` keeps a command from writing over what it reads.
"""

from __future__ import annotations

from medmtl.checking.checked import Checked
from medmtl.checking.expectation import Expectation, expectations
from medmtl.checking.label_summary import labels_in_words
from medmtl.checking.one_pass import check_cohort, check_headers
from medmtl.checking.sources import read_sources
from medmtl.checking.targets import layout, read_targets

__all__ = [
    "Checked",
    "Expectation",
    "check_cohort",
    "check_headers",
    "expectations",
    "labels_in_words",
    "layout",
    "read_sources",
    "read_targets",
]
