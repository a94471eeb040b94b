"""Everything of a cohort that is checked, in one pass."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from medmtl.checking.box_tables import check_box_tables
from medmtl.checking.channels import check_channels
from medmtl.checking.checked import Checked
from medmtl.checking.covariates import check_covariates
from medmtl.checking.derived import check_derived
from medmtl.checking.division import check_parts, divide, places
from medmtl.checking.duplicates import Duplicates
from medmtl.checking.files import Seen, look_at
from medmtl.checking.headers import look_at_headers
from medmtl.checking.patients import check_rows_per_patient
from medmtl.checking.population import check_population
from medmtl.checking.sources import read_sources
from medmtl.checking.targets import read_targets, refused_targets
from medmtl.checking.whole import Truths, check_labels, check_voxel_labels
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.split import Splits
from medmtl.progress import Progress, silent
from medmtl.tasks.base import Task

READERS = 2
AHEAD = 8  # cases looked at before their turn: results of a large cohort must not pile up

S = TypeVar("S")


def check_cohort(
    config: Config, tasks: Mapping[str, Task], progress: Progress = silent, *, to_learn: bool = True
) -> Checked:
    """Run every check on every row and file.

    Args:
        config: the resolved configuration.
        tasks: its tasks, unfitted.
        progress: called once per case.
        to_learn: whether the cohort is to be trained on. One that is only scored is not divided, and need not hold
            every class and label.

    Raises:
        CohortError: only if the table cannot be read at all.
    """
    findings = Findings()
    cohort, truths, splits = _check_table(config, tasks, findings, to_learn=to_learn)
    seen: dict[str, Seen] = {}
    fingerprints: dict[str, Fingerprint] = {}
    hashes: dict[str, str] = {}
    voxels: dict[str, str] = {}
    folder = cohort.table.parent
    duplicates = Duplicates(folder, config, places(config, splits), findings)
    for case, look in _in_order(lambda case: look_at(case, config, tasks, folder), cohort.cases, progress):
        findings.extend(list(look.findings))
        hashes.update(look.sha256)
        duplicates.add(case, look.voxels)
        voxels.update({os.path.relpath(case.images[name], folder): held.hex() for name, held in look.voxels.items()})
        seen[case.case_id] = look
        if look.fingerprint is not None:
            fingerprints[case.case_id] = look.fingerprint
    if to_learn:
        refused = refused_targets(cohort, tasks, truths)
        check_voxel_labels(tasks, truths, refused, {c.case_id: c for c in cohort.cases}, fingerprints, splits, findings)
    check_derived(tasks, truths, fingerprints, findings)
    check_population(cohort, config, tasks, seen, findings)
    return Checked(cohort, findings, truths, fingerprints, hashes, splits, voxels)


def check_headers(config: Config, tasks: Mapping[str, Task], progress: Progress = silent) -> Checked:
    """Check every row, and of every file the header only. No training starts from that: voxels are not vouched for.

    Args and Raises: as :func:`check_cohort`.

    Returns:
        Without fingerprints and hashes.
    """
    findings = Findings()
    cohort, truths, splits = _check_table(config, tasks, findings)
    folder = cohort.table.parent
    for _, found in _in_order(lambda case: look_at_headers(case, config, tasks, folder), cohort.cases, progress):
        findings.extend(list(found))
    return Checked(cohort, findings, truths, {}, {}, splits)


def _check_table(
    config: Config, tasks: Mapping[str, Task], findings: Findings, *, to_learn: bool = True
) -> tuple[Cohort, Truths, Splits | None]:
    """Everything that the table alone can tell."""
    cohort = check_box_tables(read_sources(config, tasks, findings), tasks, findings)
    truths = read_targets(cohort, tasks, findings)
    refused = refused_targets(cohort, tasks, truths)
    check_labels(cohort, tasks, truths, refused, findings, to_learn=to_learn)
    check_rows_per_patient(cohort, tasks, truths, findings, to_learn=to_learn)
    check_covariates(cohort.identified, config, findings, to_learn=to_learn)
    splits = divide(config, tasks, cohort, truths, findings) if to_learn else None
    if splits is not None:
        check_parts(config, tasks, splits, truths, refused, findings)
    check_channels(cohort, config, splits, findings, to_learn=to_learn)
    return cohort, truths, splits


def _in_order(look: Callable[[Case], S], cases: Sequence[Case], progress: Progress) -> Iterator[tuple[Case, S]]:
    """Cases with what was seen of them, in their order; a few are looked at at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[Case, Future[S]]] = deque()
        for done in range(1, len(cases) + 1):
            for case in cases[done - 1 + len(waiting) : done + AHEAD]:
                waiting.append((case, pool.submit(look, case)))
            case, seen = waiting.popleft()
            yield case, seen.result()
            progress("check", done, len(cases))
