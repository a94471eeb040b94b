"""The cohort of a run, as whoever trains or scores later reads it, and whether two folds have one in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmtl.build import build_tasks
from medmtl.checking import read_sources, read_targets
from medmtl.config import Config
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings
from medmtl.data.manifest import with_hashes
from medmtl.data.split import Splits
from medmtl.errors import ArtefactError, CohortError
from medmtl.run_folder import RunFolder

NO_TABLE = "B001"
SHOWN = 3  # files that a message names


def read_again(config: Config, run: RunFolder) -> tuple[Cohort, Mapping[str, Mapping[str, Any]]]:
    """The run's cohort and its targets, refused if the table is not the one that was trained on.

    Each case knows the hashes that its files had when they were checked: whoever reads a changed one refuses it.

    Raises:
        CohortError: if the table changed, is not where the run's configuration says, or no longer reads.
    """
    tasks = build_tasks(config)
    findings = Findings()
    try:
        cohort = read_sources(config, tasks, findings)
    except CohortError as error:
        if all(finding.code != NO_TABLE for finding in error.findings):
            raise
        hint = f"{run.config} names it, and where the cohort was moved its new place may be written there"
        raise CohortError(f"{error}; {hint}", error.findings) from None
    truths = read_targets(cohort, tasks, findings)
    rejected = findings.rejected()
    if rejected:
        raise CohortError(f"the cohort no longer reads as it did: {rejected[0].sentence()}", list(findings))
    manifest = run.load_manifest()
    if cohort.sha256 != manifest["table_sha256"]:
        raise CohortError(
            "[B031] the cohort's table changed since this run was trained; restore it, or train a new run"
        )
    return with_hashes(cohort, manifest["files_sha256"]), truths


def other_data(run: RunFolder, table: str, files: Mapping[str, str], splits: Splits) -> dict[str, str]:
    """In what some data are not those that a run was trained on.

    Args:
        run: the run.
        table: hash of the table, or of all tables.
        files: file relative to the table's folder -> hash; as in ``manifest.json``.
        splits: how the patients are divided.

    Returns:
        Id of the rule -> what is not the same, in words; empty where everything is.
    """
    manifest, own = run.load_manifest(), run.load_splits()
    found = {} if manifest["table_sha256"] == table else {"B031": "the table"}
    then = manifest["files_sha256"]
    if then and files and {*then.values()} != {*files.values()}:  # by value: a cohort that was moved is the same one
        names = [Path(name).name for name in sorted(then) if files.get(name, then[name]) != then[name]]
        found["B093"] = f"the files{': ' if names else ''}{', '.join(names[:SHOWN])}"
    if (own.folds, own.test) != (splits.folds, splits.test):
        found["B145"] = "the division into folds"
    return found


def refuse_mixed(runs: Sequence[RunFolder]) -> None:
    """Refuse folds that were not trained on one cohort with one configuration: together they say nothing.

    Raises:
        ArtefactError: naming two, and what is not the same.
    """
    for run in runs[1:]:
        manifest, then, now = run.load_manifest(), runs[0].decisive_settings(), run.decisive_settings()
        other = other_data(runs[0], manifest["table_sha256"], manifest["files_sha256"], run.load_splits())
        found = [*other.values(), *(key for key in sorted({*then, *now}) if then.get(key) != now.get(key))]
        if found:
            raise ArtefactError(
                f"{runs[0].path} and {run.path} are folds of different trainings: not the same are "
                f"{', '.join(found)}; train one of them anew, or use each alone",
                code="B153",
            )
