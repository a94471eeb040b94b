"""Measures of a mask, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medmtl.metrics.measures import ejection_fraction, fraction, volume

MASK = np.array([[0, 1, 1], [2, 2, 2]], dtype=np.uint8)[None]


@pytest.mark.parametrize(("labels", "voxels"), [((1,), 2), ((1, 2), 5), ((3,), 0), ((), 0)])
def test_volume_counts_the_named_labels(labels: tuple[int, ...], voxels: int) -> None:
    assert volume(MASK, labels, (2.0, 1.5, 0.5)) == pytest.approx(voxels * 1.5)


def test_fraction() -> None:
    assert fraction(30.0, 120.0) == 0.25
    assert fraction(0.0, 0.0) is None


def test_ejection_fraction_is_in_percent() -> None:
    assert ejection_fraction(120.0, 54.0) == pytest.approx(55.0)
    assert ejection_fraction(100.0, 110.0) == pytest.approx(-10.0)
    assert ejection_fraction(0.0, 10.0) is None
