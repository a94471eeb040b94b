"""A cohort after its check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.split import Splits
from medmtl.errors import CohortError


@dataclass(frozen=True)
class Checked:
    """A cohort after its check.

    Attributes:
        cohort: its readable rows.
        findings: everything found.
        truths: task -> case id -> target, for labelled cases; a voxel task's target is its label file.
        fingerprints: case id -> what planning needs; only cases without a reject.
        sha256: file relative to the table's folder -> hash of its bytes.
        splits: of the patients; None where the split was refused.
        voxels: image relative to the table's folder -> digest of its voxels in RAS order; none of a constant image.
    """

    cohort: Cohort
    findings: Findings
    truths: Mapping[str, Mapping[str, Any]]
    fingerprints: Mapping[str, Fingerprint]
    sha256: Mapping[str, str]
    splits: Splits | None
    voxels: Mapping[str, str] = field(default_factory=dict)

    def learnable(self, task: str) -> Mapping[str, Any]:
        """Case id -> what the task's ``fit`` takes of it: the target, but of a map the quantiles of its values, and of
        lesions with boxes their sizes.
        """
        measured = {name: {**seen.map_quantiles, **seen.box_sizes_mm} for name, seen in self.fingerprints.items()}
        return {name: found[task] for name, found in measured.items() if task in found} or self.truths[task]

    def refuse(self) -> None:
        """Raise if anything was rejected.

        Raises:
            CohortError: carries all findings.
        """
        bad = self.findings.rejected()
        if bad:
            codes = ", ".join(f"{code} x{count}" for code, count in sorted(Counter(f.code for f in bad).items()))
            raise CohortError(
                f"the check found {len(bad)} faults ({codes}); first: {bad[0].sentence()}", list(self.findings)
            )
