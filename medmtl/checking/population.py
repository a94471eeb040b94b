"""What the images and labels of all cases say together: outliers, units, orientations, copies, labels that get lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medmtl.checking.box_rows import warn_of_small_boxes
from medmtl.checking.files import Seen
from medmtl.checking.labels import USUAL_IGNORE
from medmtl.checking.opening import file_place
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.formats.nifti import read_label
from medmtl.data.geometry import canonical
from medmtl.data.preparation import to_grid, working_grid
from medmtl.data.volume import Grid, Volume
from medmtl.planning.spacing import plan_spacing
from medmtl.planning.statistics import CT_AIR
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.voxel import LabelTask, MapTask

OUTLIER = 5.0  # times the median, or a fifth of it
NOT_A_TIE = 0.49  # voxels from a centre up to which two ways of rounding give the same voxel
ALIKE = 1.01  # of two voxel sizes, up to which resampling moves next to nothing
PASTED = 64  # labels in a proposed map; more of them are no labels

Sound = Sequence[tuple[Case, Fingerprint]]


def check_population(
    cohort: Cohort, config: Config, tasks: Mapping[str, Task], seen: Mapping[str, Seen], findings: Findings
) -> None:
    """What only the files of all cases together tell.

    Args:
        cohort: the readable rows.
        config: the resolved configuration.
        tasks: its tasks, unfitted.
        seen: case id -> what was seen of its files.
        findings: gets every fault.
    """
    folder = cohort.table.parent
    sound = [(case, look.fingerprint) for case in cohort.cases if (look := seen[case.case_id]).fingerprint is not None]
    _texts(seen, findings)
    _undeclared(tasks, seen, findings)
    _copied_labels(cohort, tasks, seen, folder, findings)
    if sound:
        _orientations(sound, findings)
        _outliers(sound, config, folder, findings)
        _intensities(sound, config, folder, findings)
        spacing = plan_spacing(config, [fingerprint for _, fingerprint in sound], {})
        _small(sound, config, spacing, folder, findings)
        _lost_labels(sound, tasks, spacing, folder, findings)
        warn_of_small_boxes(sound, tasks, spacing, folder, findings)


def _first_image(case: Case, config: Config, folder: Path) -> dict[str, Any]:
    channel, path = next(iter(case.images.items()))
    return file_place(case, config.cohort_of(case).columns[channel], path, folder)


def _texts(seen: Mapping[str, Seen], findings: Findings) -> None:
    """Counted, never shown: it may name a patient."""
    files = sum(len(look.sha256) for look in seen.values())
    with_text = sum(look.with_text for look in seen.values())
    if with_text:
        fix = "it is never copied; clear it before you share the files"
        findings.warn("B091", found=f"free text in {with_text} of {files} headers", expected="none", fix=fix)


def _orientations(sound: Sound, findings: Findings) -> None:
    counts = Counter(fingerprint.orientation for _, fingerprint in sound)
    if len(counts) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        findings.fixed("B086", found=found, fix="every scan is brought to RAS order; nothing is resampled for it")


def _outliers(sound: Sound, config: Config, folder: Path, findings: Findings) -> None:
    """One finding per case, on its most unusual axis."""
    measures = np.array([(*f.grid.spacing, *f.grid.shape) for _, f in sound])  # (cases, 6)
    ratio = measures / np.median(measures, axis=0)
    far = np.maximum(ratio, 1 / ratio)
    names = [f"{axis} axis {kind}" for kind in ("spacing", "size") for axis in "xyz"]
    for (case, _), measured, factors in zip(sound, measures, far, strict=True):
        worst = int(factors.argmax())
        if factors[worst] > OUTLIER:
            found = f"{names[worst]} {measured[worst]:.4g}"
            expected = f"within {OUTLIER:g} times the median {np.median(measures[:, worst]):.4g}"
            where = _first_image(case, config, folder)
            findings.warn("B087", **where, found=found, expected=expected, fix="look whether the scan belongs here")


def _intensities(sound: Sound, config: Config, folder: Path, findings: Findings) -> None:
    """Where a channel is normalised as CT, a scan without a negative value is not in Hounsfield units."""
    for channel in config.cohort.columns:
        kind = config.plan.normalisation.get(channel)
        held = [(case, own) for case, fingerprint in sound if (own := fingerprint.channels.get(channel)) is not None]
        if kind != "ct" and not (kind is None and held and np.median([own.minimum for _, own in held]) <= CT_AIR):
            continue
        for case, own in held:
            if own.minimum >= 0:
                where = file_place(case, config.cohort_of(case).columns[channel], case.images[channel], folder)
                found, fix = f"values {own.minimum:g} to {own.maximum:g}", "export the scan with its rescale intercept"
                findings.warn("B090", **where, found=found, expected="Hounsfield units, below 0 in air", fix=fix)


def _small(sound: Sound, config: Config, spacing: Sequence[float], folder: Path, findings: Findings) -> None:
    patch = config.plan.shape
    for case, fingerprint in sound:
        shape = working_grid(fingerprint.grid, spacing).shape
        where, found = _first_image(case, config, folder), f"{list(shape)} at working spacing"
        if min(shape) == 1:
            fix = "set a finer plan.spacing or leave the case out"
            findings.reject("B088", **where, found=found, expected="two voxels or more on three axes", fix=fix)
        elif patch is not None and any(n < m for n, m in zip(shape, patch, strict=True)):
            fix = "padded with 0, the mean after normalisation"
            findings.fixed("B088", **where, found=found, expected=f"plan.shape {list(patch)} or more", fix=fix)


def _undeclared(tasks: Mapping[str, Task], seen: Mapping[str, Seen], findings: Findings) -> None:
    """One finding for a map that does not fit the cohort, beside those of the files."""
    for name, task in tasks.items():
        if not isinstance(task, LabelTask):
            continue
        foreign = [look.undeclared[name] for look in seen.values() if name in look.undeclared]
        # a value that most likely means "not labelled" is no hint that the map is another one
        foreign = [held for held in foreign if held - task.legal_values() != {USUAL_IGNORE}]
        known = [f.label_counts[name] for look in seen.values() if (f := look.fingerprint) and name in f.label_counts]
        if len(foreign) < 2 or len(foreign) < len(known):
            continue
        values = sorted({value for held in (*foreign, *known) for value in held})
        proposed = ", ".join(f"label_{value}: {value}" for value in values if value > 0)
        findings.reject(
            "B101",
            key=f"tasks.{name}.labels",
            found=f"{len(foreign)} files with values undeclared",
            expected=f"only the values {', '.join(map(str, sorted(task.legal_values())))}",
            fix=f"the files hold labels: {{{proposed}}}; paste that and rename them"
            if len(values) <= PASTED
            else f"the files hold {len(values)} values: these are no labels; name the column of the masks",
        )


def _copied_labels(
    cohort: Cohort, tasks: Mapping[str, Task], seen: Mapping[str, Seen], folder: Path, findings: Findings
) -> None:
    """A mask or map that serves two images; empty ones are often equal, and rightly so."""
    owners: dict[str, Case] = {}
    for case in cohort.cases:
        look = seen[case.case_id]
        for task in tasks.values():
            if look.fingerprint is None or not _shows_something(task, look.fingerprint):
                continue
            where = file_place(case, task.columns[0], case.files[task.columns[0]], folder)
            first = owners.setdefault(look.sha256[where["file"]], case)
            if set(first.images.values()) != set(case.images.values()):
                word = "map" if isinstance(task, MapTask) else "mask"
                found, fix = f"the {word} of {first.line}", "name each case's own label file"
                findings.warn("B109", **where, found=found, expected=f"a {word} of its own", fix=fix)


def _shows_something(task: Task, seen: Fingerprint) -> bool:
    """Whether the task's file holds more than one value, or a mask any that is a label."""
    if isinstance(task, MapTask):
        return len(set(seen.map_quantiles.get(task.name, ()))) > 1
    ignored = task.ignored_value if isinstance(task, LabelTask) else None
    return not set(seen.label_counts.get(task.name, {})) <= {0, ignored}


def _lost_labels(
    sound: Sound, tasks: Mapping[str, Task], spacing: Sequence[float], folder: Path, findings: Findings
) -> None:
    for name, task in tasks.items():
        for case, fingerprint in sound:
            if not isinstance(task, LabelTask | BoxTask) or name not in fingerprint.label_counts:
                continue
            path, at = case.files[task.columns[0]], f"at {' x '.join(f'{size:g}' for size in spacing)} mm"
            where = file_place(case, task.columns[0], path, folder)
            if isinstance(task, BoxTask) and task.parts_are_lesions:
                lesions, left = _lesions(path, task, fingerprint, spacing)
                if left != lesions:
                    found, expected = f"{lesions} lesions, {left} once resampled", f"as many {at}"
                    findings.warn("B110", **where, found=found, expected=expected, fix="set a finer plan.spacing")
                continue
            lost = _lost(path, fingerprint, fingerprint.label_places[name], spacing)
            if lost:
                found, expected = f"{lost} lost by resampling", f"a voxel of each {at}"
                findings.warn("B110", **where, found=found, expected=expected, fix="set a finer plan.spacing")


def _lesions(path: Path, task: BoxTask, fingerprint: Fingerprint, spacing: Sequence[float]) -> tuple[int, int]:
    """How many connected parts a label has in its file and on the working grid, where these may differ: lost ones are
    trained on as background, joined ones as one. The file is read again only if the grid is coarser."""
    lesions, target = len(fingerprint.box_sizes_mm[task.name]), working_grid(fingerprint.grid, spacing)
    coarser = any(new > ALIKE * own for new, own in zip(target.spacing, fingerprint.grid.spacing, strict=True))
    if not coarser or not lesions:
        return lesions, lesions
    label = Volume(canonical(read_label(path)).array, fingerprint.grid)
    return lesions, len(task.reference(to_grid(label, target, "nearest")))


def _lost(
    path: Path, fingerprint: Fingerprint, places_3N: Mapping[int, npt.NDArray[np.int32]], spacing: Sequence[float]
) -> list[int]:
    """Values that no voxel has once the label lies on the working grid; the file is read again only if one may be."""
    target = working_grid(fingerprint.grid, spacing)
    taken = _taken(fingerprint.grid, target)
    missed = [value for value, (x, y, z) in places_3N.items() if not (taken[0][x] & taken[1][y] & taken[2][z]).any()]
    if not missed:
        return []
    label = Volume(canonical(read_label(path)).array, fingerprint.grid)
    return sorted(set(missed) - set(np.unique(to_grid(label, target, "nearest")).tolist()))


def _taken(grid: Grid, target: Grid) -> list[npt.NDArray[np.bool_]]:
    """Per axis, which planes of a grid nearest-neighbour resampling to another one surely takes."""
    planes = []
    for own, new, old_size, new_size in zip(grid.shape, target.shape, grid.spacing, target.spacing, strict=True):
        centres = (np.arange(new) + 0.5) * new_size / old_size - 0.5
        nearest = np.rint(centres)
        taken = np.zeros(own, bool)
        taken[nearest[np.abs(centres - nearest) < NOT_A_TIE].clip(0, own - 1).astype(int)] = True
        planes.append(taken)
    return planes
