"""What the cases lack of the optional channels, and whether enough is left to learn from."""

from __future__ import annotations

from collections import Counter

from medmtl.config import Config
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Findings, shown
from medmtl.data.split import Splits

SITES = 5  # that a finding tells of, those that lack most first


def check_channels(
    cohort: Cohort, config: Config, splits: Splits | None, findings: Findings, *, to_learn: bool
) -> None:
    """Count the cases that lack each optional channel; every training part must hold some that have it.

    Args:
        cohort: its rows.
        config: the resolved configuration.
        splits: of the cohort, where it could be divided.
        findings: gets every fault.
        to_learn: whether the cohort is to be trained on.
    """
    for channel in config.cohort.optional:
        column = None if config.cohorts else config.cohort.columns[channel]
        where = {"key": f"{'cohorts' if config.cohorts else 'cohort'}.channels.{channel}", "column": column}
        having = {case.case_id for case in cohort.cases if channel in case.images}
        missing = len(cohort.cases) - len(having)
        if missing:
            found = f"{missing} of {len(cohort.cases)} cases without it"
            fix = "kept: 0, the mean, stands for it, and an indicator says so"
            findings.warn("B076", **where, found=found, fix=f"{fix}{_by_site(cohort, channel)}")
        # a row that could not be read may be the one that has it
        if not to_learn or cohort.left_out or cohort.unidentified:
            continue
        parts = [] if splits is None else [(f"train of fold {n}", fold.train) for n, fold in enumerate(splits.folds)]
        for place, ids in [("the cohort", [case.case_id for case in cohort.cases]), *parts]:
            if ids and not having.intersection(ids):
                found, fix = f"no case of {place} has it", "leave the channel away, or use fewer folds"
                findings.reject("B076", **where, found=found, expected="cases to learn from", fix=fix)
                break


def _by_site(cohort: Cohort, channel: str) -> str:
    """Which sites lack it: a channel that only one scanner has tells the network which scanner it was."""
    sizes = Counter(case.site for case in cohort.cases if case.site is not None)
    lacking = Counter(case.site for case in cohort.cases if case.site is not None and channel not in case.images)
    if len(sizes) < 2 or not lacking:
        return ""
    told = [f"{shown(site)} {count} of {sizes[site]}" for site, count in lacking.most_common(SITES)]
    more = ", ..." if len(lacking) > SITES else ""
    return f"; by site: {', '.join(told)}{more}"
