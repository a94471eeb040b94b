"""Every row, every file and every rule in one pass; nothing trains before it is clean.

The table's form is checked by :mod:`medmtl.data.cohort`; here its files are opened, its targets parsed, and the cohort
is looked at as a whole. A file stops at its first fault, and what depends on it is not looked at.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort, CohortLayout, read_cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import ChannelFingerprint, Fingerprint
from medmtl.data.formats.nifti import ImageError, read_image, read_label
from medmtl.data.geometry import canonical_grid, corner_shift_voxels
from medmtl.data.volume import Grid, Volume
from medmtl.errors import CohortError
from medmtl.progress import Progress, silent
from medmtl.tasks.base import CellError, Task, VoxelTask

GRID_TOLERANCE = 0.1  # voxels; the contract's bound for "the same grid"
READERS = 2


@dataclass(frozen=True)
class Checked:
    """A cohort after its check.

    Attributes:
        cohort: its readable rows.
        findings: everything found.
        truths: task -> case id -> target, for labelled cases; a voxel task's target is its label file.
        fingerprints: case id -> what planning needs; only cases without a reject.
        sha256: file relative to the table's folder -> hash of its bytes.
    """

    cohort: Cohort
    findings: Findings
    truths: Mapping[str, Mapping[str, Any]]
    fingerprints: Mapping[str, Fingerprint]
    sha256: Mapping[str, str]

    def refuse(self, *, strict: bool = False) -> None:
        """Raise if anything was rejected; with ``strict`` also if anything was warned about or repaired.

        Raises:
            CohortError: carries all findings.
        """
        bad = list(self.findings) if strict else self.findings.rejected()
        if bad:
            codes = ", ".join(f"{code} x{count}" for code, count in sorted(Counter(f.code for f in bad).items()))
            raise CohortError(
                f"the check found {len(bad)} faults ({codes}); first: {bad[0].sentence()}", list(self.findings)
            )


@dataclass(frozen=True)
class _Seen:
    findings: Findings
    fingerprint: Fingerprint | None
    sha256: Mapping[str, str]


def layout(config: Config, tasks: Mapping[str, Task]) -> CohortLayout:
    """Which columns of the table are read, and as what."""
    section = config.cohort
    return CohortLayout(
        table=section.table,
        case=section.case,
        patient=section.patient,
        site=section.site,
        channels=section.channels,
        value_columns=tuple(dict.fromkeys(c for task in tasks.values() if not task.voxel for c in task.columns)),
        file_columns=tuple(dict.fromkeys(c for task in tasks.values() if task.voxel for c in task.columns)),
        split=config.split.column,
        missing=section.missing,
        roots=section.roots,
        allow_shared_image="shared-image" in section.allow,
    )


def read_targets(cohort: Cohort, tasks: Mapping[str, Task], findings: Findings) -> dict[str, dict[str, Any]]:
    """Parse every target cell; a bad one is a finding and counts as not labelled."""
    truths: dict[str, dict[str, Any]] = {name: {} for name in tasks}
    for case in cohort.cases:
        for name, task in tasks.items():
            try:
                truth = task.read(case)
            except CellError as error:
                findings.reject(
                    error.code,
                    case=case.case_id,
                    row=case.row,
                    column=error.column,
                    found=error.found,
                    expected=error.expected,
                    fix=error.fix,
                )
                continue
            if truth is not None:
                truths[name][case.case_id] = truth
    return truths


def check_cohort(config: Config, tasks: Mapping[str, Task], progress: Progress = silent) -> Checked:
    """Run every check on every row and file.

    Args:
        config: the resolved configuration.
        tasks: its tasks, unfitted.
        progress: called once per case.

    Raises:
        CohortError: only if the table cannot be read at all.
    """
    findings = Findings()
    cohort = read_cohort(layout(config, tasks), findings)
    truths = read_targets(cohort, tasks, findings)
    fingerprints: dict[str, Fingerprint] = {}
    hashes: dict[str, str] = {}
    with ThreadPoolExecutor(READERS) as pool:
        seen = pool.map(lambda case: _look_at(case, config, tasks, cohort.table.parent), cohort.cases)
        for done, (case, look) in enumerate(zip(cohort.cases, seen, strict=True), start=1):
            findings.extend(list(look.findings))
            hashes.update(look.sha256)
            if look.fingerprint is not None:
                fingerprints[case.case_id] = look.fingerprint
            progress("check", done, len(cohort.cases))
    _check_whole(cohort, tasks, truths, fingerprints, findings)
    _check_duplicates(cohort, hashes, findings)
    return Checked(cohort, findings, truths, fingerprints, hashes)


def _look_at(case: Case, config: Config, tasks: Mapping[str, Task], folder: Path) -> _Seen:
    findings = Findings()
    hashes: dict[str, str] = {}
    grid: Grid | None = None
    channels: dict[str, ChannelFingerprint] = {}
    for channel, path in case.images.items():
        column = config.cohort.channels[channel]
        volume = _open(path, False, case, column, folder, findings, hashes)
        if volume is None:
            return _Seen(findings, None, hashes)
        if not _check_image(volume, grid, config, case, column, folder, path, findings):
            return _Seen(findings, None, hashes)
        grid = grid or volume.grid
        array = volume.array
        channels[channel] = ChannelFingerprint(
            float(array.min()), float(array.max()), float(1 - np.count_nonzero(array) / array.size)
        )
    assert grid is not None
    counts: dict[str, dict[int, int]] = {}
    for name, task in tasks.items():
        if isinstance(task, VoxelTask) and task.columns[0] in case.files:
            found = _look_at_label(case, task, grid, config, folder, findings, hashes)
            if found is None:
                return _Seen(findings, None, hashes)
            counts[name] = found
    return _Seen(findings, Fingerprint(canonical_grid(grid), channels, counts), hashes)


def _open(
    path: Path, label: bool, case: Case, column: str, folder: Path, findings: Findings, hashes: dict[str, str]
) -> Volume | None:
    file = os.path.relpath(path, folder)
    where: dict[str, Any] = {"case": case.case_id, "row": case.row, "column": column, "file": file}
    try:
        volume = read_label(path) if label else read_image(path)
    except ImageError as error:
        findings.reject(error.code, **where, found=error.found, expected=error.expected, fix=error.fix)
        return None
    for code, text in volume.notes:
        findings.fixed(code, **where, found=text)
    if volume.sha256 is not None:
        hashes[file] = volume.sha256
    return volume


def _check_image(
    volume: Volume,
    first: Grid | None,
    config: Config,
    case: Case,
    column: str,
    folder: Path,
    path: Path,
    findings: Findings,
) -> bool:
    where: dict[str, Any] = {
        "case": case.case_id,
        "row": case.row,
        "column": column,
        "file": os.path.relpath(path, folder),
    }
    if volume.array.min() == volume.array.max() and "constant" not in config.cohort.allow:
        findings.reject(
            "B072",
            **where,
            found="every voxel equal",
            expected="an image",
            fix="list cohort.allow: [constant] if meant",
        )
        return False
    if first is None or config.cohort.resample == "to_first":
        return True
    if volume.grid.shape != first.shape:
        findings.reject(
            "B076",
            **where,
            found=list(volume.grid.shape),
            expected=str(list(first.shape)),
            fix="set cohort.resample: to_first",
        )
        return False
    shift = corner_shift_voxels(volume.grid, first)
    if shift >= GRID_TOLERANCE:
        findings.reject(
            "B077",
            **where,
            found=f"corners {shift:.2f} voxels apart",
            expected="channels on one grid",
            fix="set cohort.resample: to_first",
        )
        return False
    return True


def _look_at_label(
    case: Case,
    task: VoxelTask,
    grid: Grid,
    config: Config,
    folder: Path,
    findings: Findings,
    hashes: dict[str, str],
) -> dict[int, int] | None:
    column = task.columns[0]
    path = case.files[column]
    volume = _open(path, True, case, column, folder, findings, hashes)
    if volume is None:
        return None
    where: dict[str, Any] = {
        "case": case.case_id,
        "row": case.row,
        "column": column,
        "file": os.path.relpath(path, folder),
    }
    if volume.grid.shape != grid.shape:
        findings.reject(
            "B095",
            **where,
            found=list(volume.grid.shape),
            expected=str(list(grid.shape)),
            fix="redraw or resample the label",
        )
        return None
    shift = corner_shift_voxels(volume.grid, grid)
    if shift >= GRID_TOLERANCE:
        findings.reject(
            "B096",
            **where,
            found=f"corners {shift:.2f} voxels from the image's",
            expected=f"less than {GRID_TOLERANCE}",
            fix="resample the label to the image's grid",
        )
        return None
    if shift > 1e-3:
        findings.fixed("B096", **where, found=f"corners {shift:.3f} voxels apart", fix="the image's grid is used")
    return _check_values(volume, task, findings, where)


def _check_values(
    volume: Volume, task: VoxelTask, findings: Findings, where: Mapping[str, Any]
) -> dict[int, int] | None:
    values, counts = np.unique(volume.array, return_counts=True)
    found = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    legal = task.legal_values()
    if not set(found) <= legal:
        findings.reject(
            "B100",
            **where,
            found=sorted(found),
            expected=f"values in {sorted(legal)}",
            fix=f"declare the value in tasks.{task.name}.labels or correct the file",
        )
        return None
    if set(found) <= {0}:
        findings.warn(
            "B105", **where, found="no voxel labelled", expected="a reader's mask", fix="kept as a true negative"
        )
    return found


def _check_whole(
    cohort: Cohort,
    tasks: Mapping[str, Task],
    truths: Mapping[str, Mapping[str, Any]],
    fingerprints: Mapping[str, Fingerprint],
    findings: Findings,
) -> None:
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


def _check_duplicates(cohort: Cohort, hashes: Mapping[str, str], findings: Findings) -> None:
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
