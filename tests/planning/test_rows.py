from __future__ import annotations

import pytest

from medmtl.planning.rows import _duration


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (21.4, "0.36 minutes"),
        (348.0, "5.8 minutes"),
        (6540.0, "110 minutes"),
        (7200.0, "2 hours"),
        (14520.0, "4 hours"),
        (400 * 3600.0, "400 hours"),
    ],
)
def test_a_time_has_two_digits_and_no_exponent(seconds: float, told: str) -> None:
    assert _duration(seconds) == told
