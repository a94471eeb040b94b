from __future__ import annotations

import pytest

from medmtl.checking.whole import fits
from medmtl.data.finding import FOUND_LIMIT, Finding, Findings
from medmtl.tasks.survival import Survival
from medmtl.tasks.survival.outcome import Outcome
from medmtl.tasks.survival.task import SurvivalOptions


@pytest.mark.parametrize(
    ("found", "shown"), [("no", "no"), ("no ", "'no '"), (" no", "' no'"), ("", "''"), ("a b", "a b")]
)
def test_blanks_that_nobody_would_see_are_shown_in_quotation_marks(found: str, shown: str) -> None:
    finding = Finding("B112", "reject", row=2, found=found, expected="one of no, yes")
    assert finding.sentence() == f"[B112] row 2: found {shown}; expected one of no, yes"
    assert finding.to_json()["found"] == found


@pytest.mark.covers("B125", "B128")
def test_what_a_survival_says_of_its_times_is_not_cut() -> None:
    options = SurvivalOptions(kind="survival", time="days", event="died", horizon=1095)
    task, findings = Survival("outcome", options), Findings()
    in_months = [Outcome(time, False) for time in (3.1, 7.7, 12.4, 20.9)]
    in_days = [Outcome(30.44 * outcome.time * factor, False) for outcome in in_months for factor in (1, 1.1, 1.2)]
    told = [doubt.found for doubt in task.doubts({str(n): case for n, case in enumerate([*in_months, *in_days])})]
    findings.warn("B128", found=told[0])
    last = [Outcome(100.0, True), *(Outcome(float(time), False) for time in range(1, 100))]
    cox = Survival("outcome", options.model_copy(update={"loss": "cox"}))
    assert not fits(cox, last, " in train 10", findings)
    assert not fits(task, last[1:], " in train 10", findings)
    assert [finding.found for finding in findings] == [
        "two groups of times: days and months",
        "1 events, none at risk then in train 10",
        "99 cases, all censored in train 10",
    ]
    assert all(len(finding.found or "") <= FOUND_LIMIT for finding in findings)
