"""The cohort of a run, as whoever trains or scores later reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmtl.build import build_tasks
from medmtl.checking import read_sources, read_targets
from medmtl.config import Config
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.manifest import with_hashes
from medmtl.errors import CohortError
from medmtl.run_folder import RunFolder


def read_again(config: Config, run: RunFolder) -> tuple[Cohort, Mapping[str, Mapping[str, Any]]]:
    """The run's cohort and its targets, refused if the table is not the one that was trained on.

    Each case knows the hashes that its files had when they were checked: whoever reads a changed one refuses it.

    Raises:
        CohortError: if the table changed or no longer reads.
    """
    tasks = build_tasks(config)
    findings = Findings()
    cohort = read_sources(config, tasks, findings)
    truths = read_targets(cohort, tasks, findings)
    rejected = findings.rejected()
    if rejected:
        raise CohortError(f"the cohort no longer reads as it did: {rejected[0].sentence()}", list(findings))
    manifest = run.load_manifest()
    if cohort.sha256 != manifest["table_sha256"]:
        raise CohortError(
            "[B031] the cohort's table changed since this run was trained; restore it, or train a new run"
        )
    return with_hashes(cohort, manifest.get("files_sha256", {})), truths
