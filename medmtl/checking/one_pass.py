"""Everything of a cohort that is checked, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from medmtl.checking.checked import Checked
from medmtl.checking.files import Seen, look_at
from medmtl.checking.population import check_population
from medmtl.checking.targets import layout, read_targets
from medmtl.checking.whole import check_duplicates, check_whole
from medmtl.config import Config
from medmtl.data.cohort import read_cohort
from medmtl.data.finding import Findings
from medmtl.data.fingerprint import Fingerprint
from medmtl.progress import Progress, silent
from medmtl.tasks.base import Task

READERS = 2


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
    seen: dict[str, Seen] = {}
    fingerprints: dict[str, Fingerprint] = {}
    hashes: dict[str, str] = {}
    with ThreadPoolExecutor(READERS) as pool:
        looks = pool.map(lambda case: look_at(case, config, tasks, cohort.table.parent), cohort.cases)
        for done, (case, look) in enumerate(zip(cohort.cases, looks, strict=True), start=1):
            findings.extend(list(look.findings))
            hashes.update(look.sha256)
            seen[case.case_id] = look
            if look.fingerprint is not None:
                fingerprints[case.case_id] = look.fingerprint
            progress("check", done, len(cohort.cases))
    check_whole(cohort, tasks, truths, fingerprints, findings)
    check_duplicates(cohort, hashes, findings)
    check_population(cohort, config, tasks, seen, findings)
    return Checked(cohort, findings, truths, fingerprints, hashes)
