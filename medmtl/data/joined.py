"""Several cohorts as one: ids with the cohort's name before them, so that no two of them meet.

An id means one case, and one person, within its table only: ``007`` of one hospital is not ``007`` of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from medmtl.data.case import Case
from medmtl.data.cohort import Cohort
from medmtl.data.finding import Finding
from medmtl.files import json_bytes, sha256_bytes


def of_cohort(case: Case, name: str, *, has_site: bool) -> Case:
    """A case of a table as one of several tables' cases.

    Args:
        case: as its table says.
        name: the cohort's.
        has_site: whether the table says sites; otherwise the cohort is the site.
    """
    return replace(
        case,
        case_id=f"{name}/{case.case_id}",
        patient=f"{name}/{case.patient}",
        site=case.site if has_site else name,
        cohort=name,
    )


def finding_of(finding: Finding, name: str) -> Finding:
    """A finding about one of several tables."""
    case = None if finding.case is None else f"{name}/{finding.case}"
    return replace(finding, case=case, key=finding.key or f"cohorts.{name}")


def join(cohorts: Mapping[str, Cohort], with_sites: frozenset[str]) -> Cohort:
    """One cohort of several.

    Args:
        cohorts: by name, at least one; the first one's folder is the one that files are named from.
        with_sites: those whose table says sites.
    """

    def named(name: str, cases: tuple[Case, ...]) -> list[Case]:
        return [of_cohort(case, name, has_site=name in with_sites) for case in cases]

    tables = {name: cohort.sha256 for name, cohort in cohorts.items()}
    return Cohort(
        table=next(iter(cohorts.values())).table,
        cases=tuple(case for name, cohort in cohorts.items() for case in named(name, cohort.cases)),
        sha256=sha256_bytes(json_bytes(tables)),
        columns=tuple(dict.fromkeys(column for cohort in cohorts.values() for column in cohort.columns)),
        left_out=tuple(case for name, cohort in cohorts.items() for case in named(name, cohort.left_out)),
        unidentified=sum(cohort.unidentified for cohort in cohorts.values()),
        tables=tables,
    )
