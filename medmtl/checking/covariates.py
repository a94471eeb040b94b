"""What the cells of the clinical covariates say, one by one and together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cell import folded, is_missing_word, number
from medmtl.data.covariates import CovariateFault, CovariateKind, parse
from medmtl.data.finding import Findings
from medmtl.tasks.regression.doubt import FAR, outliers, repeated_extremes

SPARSE = 0.5  # share of missing cells from which a covariate says more of who was measured than of what was measured


def check_covariates(cases: Sequence[Case], config: Config, findings: Findings, *, to_learn: bool) -> None:
    """Every cell of every declared covariate, then each covariate as a whole.

    Args:
        cases: all rows with sound ids.
        config: the resolved configuration.
        findings: gets every fault.
        to_learn: whether the cases are to be trained on.
    """
    declared = config.cohort.covariates
    if to_learn and declared and not config.used_covariates:
        found, fix = "no task reads them", "set inputs: both, or covariates, in a case task, or leave them away"
        findings.warn("B014", key="cohort.covariates", found=found, fix=fix)
    for name, kind in declared.items():
        held = read_column(cases, name, kind, findings)
        missing = sum(case.cells[name] is None for case in cases)
        key = f"cohort.covariates.{name}"
        if to_learn and cases and missing == len(cases):
            fix = "fill or rename the column"
            findings.reject("B116", key=key, column=name, found="no value", expected="values", fix=fix)
        elif missing > SPARSE * len(cases):
            found, fix = f"{missing} of {len(cases)} cases without a value", "kept: a missing value has an indicator"
            findings.warn("B116", key=key, column=name, found=found, expected="a value for most cases", fix=fix)
        if to_learn and len(set(held.values())) == 1:
            found, fix = f"{len(held)} values, all equal", "kept: it says nothing; leave it away"
            findings.warn("B014", key=key, column=name, found=found, expected="values that differ", fix=fix)
        rows = {case.case_id: case.row for case in cases}
        if kind == "number":
            _doubt_numbers(name, {case: v for case, v in held.items() if isinstance(v, float)}, rows, findings)
        else:
            _doubt_levels(name, {case: v for case, v in held.items() if isinstance(v, str)}, rows, findings)


def read_column(cases: Sequence[Case], name: str, kind: CovariateKind, findings: Findings) -> dict[str, float | str]:
    """Case id -> value, where the cell holds one; a bad cell is a reject."""
    held: dict[str, float | str] = {}
    for case in cases:
        try:
            value = parse(name, kind, case.cells[name])
        except CovariateFault as fault:
            findings.reject_fault(fault, case=case.case_id, row=case.row)
            continue
        if value is not None:
            held[case.case_id] = value
    return held


def _doubt_numbers(name: str, held: Mapping[str, float], rows: Mapping[str, int], findings: Findings) -> None:
    """A repeated extreme that may stand for "missing", and values far from all others."""
    extremes = repeated_extremes(held.values())
    fix = "list it in cohort.missing if it means that the value is missing"
    for extreme, count in extremes.items():
        found = f"{extreme:g} in {count} rows, an extreme"
        findings.warn("B121", column=name, found=found, expected="measured values", fix=fix)
    expected, fix = f"values within {FAR:g} MAD of the median", "check the value and its unit"
    for case, mads in outliers({case: v for case, v in held.items() if v not in extremes}).items():
        found = f"{held[case]:g}, {mads:.0f} MAD away"
        findings.warn("B122", case=case, row=rows[case], column=name, found=found, expected=expected, fix=fix)


def _doubt_levels(name: str, held: Mapping[str, str], rows: Mapping[str, int], findings: Findings) -> None:
    """Levels that are one in two spellings, and words for "missing"."""
    first: dict[float | str, str] = {}
    counts = Counter(held.values())
    seen = {level: case for case, level in reversed(list(held.items()))}
    for level, case in sorted(seen.items(), key=lambda pair: rows[pair[1]]):
        value = number(level.strip())
        earlier = first.setdefault(folded(level) if value is None else value, level)
        where = {"case": case, "row": rows[case], "column": name}
        if earlier != level:
            report, code = (findings.warn, "B015") if value is None else (findings.reject, "B113")
            report(code, **where, found=level, expected=f"one spelling, as {earlier!r}", fix="write both alike")
        elif is_missing_word(level):
            found, fix = f"{level} in {counts[level]} rows", "kept as a level; list it in cohort.missing if it is none"
            findings.warn("B116", **where, found=found, expected="a level, or an empty cell", fix=fix)
