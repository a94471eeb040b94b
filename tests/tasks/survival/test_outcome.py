"""What the two cells may say."""

from __future__ import annotations

import pytest

from medmtl.tasks.base import CellError
from medmtl.tasks.survival import Outcome, Survival, SurvivalOptions
from tests.tasks.contract import case


def read(time: str | None, event: str | None, max_time: float | None = None) -> Outcome | None:
    options = SurvivalOptions(kind="survival", time="days", event="died", horizon=10, max_time=max_time)
    return Survival("outcome", options).read(case(cells={"days": time, "died": event}))


def test_times_and_events_are_read() -> None:
    assert read("412", "1") == Outcome(412.0, True)
    assert read("0.5", "0") == Outcome(0.5, False)
    assert read("1e3", "1.0") == Outcome(1000.0, True)
    assert read(None, None) is None
    assert read("5000", "0", max_time=5000) == Outcome(5000.0, False)


@pytest.mark.parametrize(
    ("time", "event", "code", "column"),
    [
        *(
            pytest.param(time, "1", "B123", "days", marks=pytest.mark.covers("B123"))
            for time in ("0", "-3", "inf", "alive", "2024-01-31", "31.01.2024", "12 days", "3;4", " 3", "")
        ),
        pytest.param("2,5", "1", "B006", "days", marks=pytest.mark.covers("B006")),
        pytest.param("?", "1", "B116", "days", marks=pytest.mark.covers("B116")),
        pytest.param("nan", "nan", "B116", "days", marks=pytest.mark.covers("B116")),
        pytest.param("3", "n/a", "B116", "died", marks=pytest.mark.covers("B116")),
        *(
            pytest.param("3", event, "B124", "died", marks=pytest.mark.covers("B124"))
            for event in ("yes", "2", "0.5", "-1", "true", "dead", "01;0", "")
        ),
        pytest.param(None, "1", "B127", "days", marks=pytest.mark.covers("B127")),
        pytest.param("3", None, "B127", "died", marks=pytest.mark.covers("B127")),
        pytest.param("5001", "0", "B128", "days", marks=pytest.mark.covers("B128")),
    ],
)
def test_anything_else_is_refused(time: str | None, event: str | None, code: str, column: str) -> None:
    with pytest.raises(CellError) as caught:
        read(time, event, max_time=5000)
    assert (caught.value.code, caught.value.column) == (code, column)
    assert caught.value.found == ((time if column == "days" else event) or "")
    assert caught.value.expected
    assert caught.value.fix
    assert ("write 0 for every 1" in caught.value.fix) is (event == "2")
