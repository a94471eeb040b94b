"""What the files of a cohort were when it was checked, carried by its cases to whoever reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.errors import InputError


def with_hashes(cohort: Cohort, sha256: Mapping[str, str]) -> Cohort:
    """The cohort with each case knowing the hashes of its files.

    Args:
        cohort: as read.
        sha256: file relative to the table's folder -> hash of its bytes, as in ``manifest.json``. So a cohort that was
            moved with its table is still the same one.

    Raises:
        InputError: a file was not among those that were checked.
    """
    return replace(cohort, cases=tuple(_with_hashes(case, cohort.table.parent, sha256) for case in cohort.cases))


def _with_hashes(case: Case, folder: Path, sha256: Mapping[str, str]) -> Case:
    found: dict[Path, str] = {}
    for path in (*case.images.values(), *case.files.values()):
        name = os.path.relpath(path, folder)
        if name not in sha256:
            raise InputError(
                f"case {case.case_id!r}: {name} is not among the files that were checked; put the cohort back where it "
                "was, or train a new run",
                code="B093",
            )
        found[path] = sha256[name]
    return replace(case, sha256=found)
