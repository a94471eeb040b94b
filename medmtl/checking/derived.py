"""Values that are said to follow from masks, beside what the reference's masks give."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from statistics import median

from medmtl.checking.whole import Truths
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.tasks.base import Task
from medmtl.tasks.regression.derived import derived_value, resolve_structures
from medmtl.tasks.regression.task import Regression
from medmtl.tasks.voxel import LabelTask

LEAST, MOST = 0.5, 2.0  # times what the masks give: a mistaken unit is further off, another way to measure nearer
FEW = 3  # cases that may be told by chance


def check_derived(
    tasks: Mapping[str, Task], truths: Truths, fingerprints: Mapping[str, Fingerprint], findings: Findings
) -> None:
    """Warn where a column is on another scale than its ``derived_from`` (B128), as by a mistaken unit.

    Cases count that have all of the masks. Masks that may lack labels which nobody looked for are not compared.

    Args:
        tasks: unfitted.
        truths: task -> case id -> target.
        fingerprints: case id -> what was seen of its files.
        findings: gets the warnings.
    """
    for name, task in tasks.items():
        if not isinstance(task, Regression) or (derivation := task.options.derivation) is None:
            continue
        sources = {structure.partition("/")[0] for structure in derivation.structures()}
        if not sources <= tasks.keys():  # of another cohort only the tasks in common are read
            continue
        labels = resolve_structures(derivation.structures(), tasks)
        if any(isinstance(mask := tasks[source], LabelTask) and mask.annotated_column for source in sources):
            continue
        ratios = []
        for case_id, value in truths[name].items():
            seen = fingerprints.get(case_id)
            if seen is not None and sources <= seen.label_counts.keys():
                given = derived_value(derivation, task.options.unit, labels, _Volumes(seen))
                ratios += [value / given] if given else []
        if len(ratios) >= FEW and not LEAST <= (ratio := median(ratios)) <= MOST:
            findings.warn(
                "B128",
                column=task.options.column,
                key=f"tasks.{name}",
                found=f"{float(f'{ratio:.3g}'):g} times the masks', {len(ratios)} cases",
                expected="about what derived_from gives in the unit",
                fix="kept; correct unit, derived_from or the column if it is one of them",
            )


class _Volumes:
    """Volume in mm3 of label values of a task in one case."""

    def __init__(self, seen: Fingerprint) -> None:
        self._counts, self._mm3 = seen.label_counts, math.prod(seen.grid.spacing)

    def __call__(self, task: str, values: Collection[int]) -> float:
        return self._mm3 * sum(self._counts[task].get(value, 0) for value in values)
