"""A cohort after its check."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medmtl.data.cohort import Cohort
from medmtl.data.finding import Finding, Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.data.split import Splits
from medmtl.errors import CohortError

logger = logging.getLogger(__name__)


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

    @property
    def label_files(self) -> dict[str, int]:
        """Column -> cases that have a file in it."""
        return dict(Counter(column for case in self.cohort.identified for column in case.files))

    def refuse(self) -> None:
        """Raise if anything was rejected.

        Raises:
            CohortError: carries all findings.
        """
        bad = self.findings.rejected()
        if bad:
            faults = "1 fault" if len(bad) == 1 else f"{len(bad)} faults"
            raise CohortError(
                f"the check found {faults} ({_codes(bad)}); first: {bad[0].sentence()}", list(self.findings)
            )

    def tell(self, listed: str) -> None:
        """Log what was warned about and repaired: one warning with the number of each rule, and nothing for nothing.

        The record carries ``findings`` and ``label_files``, so that the command line can show what ``check`` shows.

        Args:
            listed: the sentence's end, which says where all of it stands.
        """
        found = [finding for finding in self.findings if finding.severity != "reject"]
        if not found:
            return
        warned = sum(finding.severity == "warn" for finding in found)
        logger.warning(
            "the check warned about %d, repaired %d (%s); %s",
            warned,
            len(found) - warned,
            _codes(found),
            listed,
            extra={"findings": found, "label_files": self.label_files},
        )


def _codes(findings: Sequence[Finding]) -> str:
    """``B032 x2, B094 x1``."""
    return ", ".join(f"{code} x{count}" for code, count in sorted(Counter(f.code for f in findings).items()))
