"""Labels of cases that no window around a lesion can show."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmtl import config as configuration
from medmtl.device import describe_device
from medmtl.errors import InputError
from medmtl.planning import Plan
from medmtl.planning.shown_labels import shown_labels
from medmtl.training.session import open_session
from medmtl.training.start import Ready, make_ready, plan_fold, start_run
from tests.conftest import TINY
from tests.tables import rewrite

LESION = {**TINY, "plan.shape": [16, 16, 16], "views.kind": "lesion"}
Make = Callable[..., Ready]


@pytest.fixture
def make(tiny_cohort: Path, tmp_path: Path) -> Make:
    """The tiny cohort, checked, with the masks of some cases alone, and with them perhaps no risk."""

    def checked(masked: Callable[[dict[str, str]], bool], *, risk: bool = True, **overrides: Any) -> Ready:
        place = Path(shutil.copytree(tiny_cohort.parent, tmp_path / "cohort"))

        def change(number: int, row: dict[str, str]) -> None:
            if not masked(row):
                row["lesion"] = ""
            elif not risk:
                row["risk"] = ""

        rewrite(place / "cohort.csv", change)
        return make_ready(configuration.load(place / tiny_cohort.name, {**LESION, **overrides}))

    return checked


def planned(ready: Ready) -> Plan:
    return plan_fold(ready, 0, describe_device("cpu"))


@pytest.mark.covers("B116")
def test_a_task_of_which_no_labelled_case_has_a_mask_is_refused(make: Make) -> None:
    ready = make(lambda row: row["malignancy"] != "", risk=False)
    told = r"^\[B116\] tasks.risk looks at windows .* labelled training cases 0 have a mask of lesion.*; draw"
    with pytest.raises(InputError, match=told):
        planned(ready)


def test_a_class_that_no_mask_shows_is_refused_by_the_task_s_own_rule(make: Make) -> None:
    ready = make(lambda row: row["malignancy"] != "benign")
    with pytest.raises(InputError, match=r"^tasks.malignancy .* of these alone: \[B1.*; draw the others, or set views"):
        planned(ready)


def test_what_is_learned_of_labels_is_learned_of_those_that_are_shown(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready = make(lambda row: row["malignancy"] != "" or row["case_id"] < "case_004")
    train = ready.members(0)[0]
    masked = {case.case_id for case in train if "lesion" in case.files}
    risks = {case_id: found for case_id, found in ready.checked.truths["risk"].items() if case_id in masked}
    with caplog.at_level(logging.WARNING):
        run = start_run(ready, tmp_path / "run", 0, "cpu")
    assert any("tasks.risk" in message and "learns from these alone" in message for message in caplog.messages)
    plan = run.load_plan()
    assert set(shown_labels(plan, train, ready.checked.truths)["risk"]) == set(risks)
    assert plan.tasks["risk"] == ready.tasks["risk"].fit(list(risks.values()))
    (view,) = [view for view in open_session(run).training.views if view.view.kind == "lesion"]
    assert {view.cases[view.order.case(step, slot)].case_id for step in range(30) for slot in range(view.batch)} == {
        case.case_id for case in train if case.case_id in masked and case.case_id in view.truths["risk"]
    }


def test_other_views_show_every_label(make: Make) -> None:
    ready = make(lambda row: row["malignancy"] != "", **{"views.kind": "tiles"})
    plan = planned(ready)
    assert shown_labels(plan, ready.checked.cohort.cases, ready.checked.truths) == ready.checked.truths
