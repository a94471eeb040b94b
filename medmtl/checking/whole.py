"""The cohort as a whole: what no single row or file can tell."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.tasks.base import CellError, Task, VoxelTask


def check_whole(
    cohort: Cohort,
    tasks: Mapping[str, Task],
    truths: Mapping[str, Mapping[str, Any]],
    fingerprints: Mapping[str, Fingerprint],
    findings: Findings,
) -> None:
    """What the labels of all cases together must hold."""
    for name, task in tasks.items():
        labelled = truths[name]
        # a cell that was refused is a finding of its own, not a missing label
        missing = sum(all(case.cells[column] is None for column in task.columns) for case in cohort.cases)
        key = f"tasks.{name}"
        if not labelled:
            findings.reject(
                "B116", key=key, found="no labelled case", expected="labels", fix="fill or rename the column"
            )
            continue
        if missing:
            findings.warn(
                "B094" if task.voxel else "B116", key=key, found=f"{missing} of {len(cohort.cases)} cases not labelled"
            )
        if isinstance(task, VoxelTask):
            present = {v for f in fingerprints.values() for v in f.label_counts.get(name, {})}
            absent = sorted(task.legal_values() - present - {0})
            if absent and fingerprints:
                findings.reject(
                    "B106",
                    key=key,
                    found=f"no case holds {absent}",
                    expected="every label somewhere",
                    fix="drop the label",
                )
            continue
        try:
            task.fit([truth for truth in labelled.values()])
        except CellError as error:
            findings.reject(error.code, key=key, found=error.found, expected=error.expected, fix=error.fix)
    for case in cohort.cases:
        if not any(case.case_id in labelled for labelled in truths.values()):
            findings.warn(
                "B117", case=case.case_id, row=case.row, found="no target at all", fix="the row trains no task"
            )


def check_duplicates(cohort: Cohort, hashes: Mapping[str, str], findings: Findings) -> None:
    """One image under two cases: a fault, unless both are one patient's."""
    owners: dict[str, list[Case]] = defaultdict(list)
    for case in cohort.cases:
        for path in case.images.values():
            digest = hashes.get(os.path.relpath(path, cohort.table.parent))
            if digest is not None and (not owners[digest] or owners[digest][-1] is not case):
                owners[digest].append(case)
    for same in owners.values():
        for later in same[1:]:
            first = same[0]
            report = findings.warn if later.patient == first.patient else findings.reject
            report(
                "B020",
                case=later.case_id,
                row=later.row,
                found=f"the same image as row {first.row}",
                expected="one row per image",
                fix="remove one row, or give both the same patient",
            )
