from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from matplotlib import image as png
from matplotlib.figure import Figure as Canvas

from medmtl.data.volume import Grid, Volume
from medmtl.evaluation import pictures
from medmtl.evaluation.pictures import ON_SCAN, ON_WHITE, _numbers_at_risk, draw, loss_curve, overlay
from medmtl.metrics.calibration import CalibrationPoint
from medmtl.metrics.figures import (
    BlandAltmanFigure,
    CalibrationFigure,
    Figure,
    FrocFigure,
    KaplanMeierFigure,
    RocFigure,
    ScatterFigure,
    StripFigure,
)


def brightness(picture: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(png.imread(io.BytesIO(base64.b64decode(picture.partition(",")[2]))), np.float64)[..., :3]


@pytest.mark.parametrize("flipped", [False, True])
def test_the_patients_right_is_on_the_left_and_the_front_on_top(flipped: bool) -> None:
    bright = np.zeros((20, 20, 3), np.float32)
    bright[14:18, 15:19, 1] = 1.0  # in RAS order: right and front
    label = np.zeros((20, 20, 3), np.uint8)
    label[1, 1, 1] = label[18, 18, 1] = 1  # keeps the whole slice in view
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    if flipped:
        bright, label = bright[::-1, ::-1], label[::-1, ::-1]
        affine = np.array([[-1.0, 0, 0, 19], [0, -1.0, 0, 19], [0, 0, 5.0, 0], [0, 0, 0, 1]])
    grid = Grid((20, 20, 3), affine)
    picture = overlay(Volume(bright, grid), Volume(label, grid), Volume(label, grid), {})
    shown = brightness(picture.uri).mean(axis=2)
    middle = shown.shape[0] // 2
    quarters = [shown[:middle, :middle], shown[:middle, middle:], shown[middle:, :middle], shown[middle:, middle:]]
    assert int(np.argmax([quarter.mean() for quarter in quarters])) == 0
    assert picture.caption == "axial slice 2 of 3; the patient's right is on the left"


def test_the_outline_lies_where_the_mask_is_also_at_the_edge() -> None:
    grid = Grid((30, 30, 2), np.diag([1.0, 1.0, 3.0, 1.0]))
    scan = Volume(np.zeros(grid.shape, np.float32), grid)
    mask = np.zeros(grid.shape, np.uint8)
    mask[20:30, 20:30, 1] = 7
    nothing = Volume(np.zeros(grid.shape, np.uint8), grid)
    picture = overlay(scan, Volume(mask, grid), nothing, {7: "core"})
    coloured = np.ptp(brightness(picture.uri), axis=2) > 0.2
    rows, columns = np.nonzero(coloured)
    side = coloured.shape[0]
    # the view is closed in to 15 voxels of 30 at the corner, of which the mask takes two thirds from the left and top
    assert (rows.min() < 0.03 * side) and (columns.min() < 0.03 * side)
    assert rows.max() == pytest.approx(2 / 3 * side, abs=0.03 * side)
    assert columns.max() == pytest.approx(2 / 3 * side, abs=0.03 * side)
    assert picture.legend == (("core", ON_SCAN[0], "solid"),)


def test_a_reference_is_solid_and_a_prediction_dashed() -> None:
    grid = Grid((30, 30, 2), np.diag([1.0, 1.0, 3.0, 1.0]))
    mask, zeros = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    mask[10:20, 10:20, 1] = 7
    scan, drawn, nothing = (Volume(array, grid) for array in (zeros.astype(np.float32), mask, zeros))
    solid, dashed = (
        np.count_nonzero(np.ptp(brightness(overlay(scan, *pair, {7: "core"}).uri), axis=2) > 0.2)
        for pair in ((drawn, nothing), (nothing, drawn))
    )
    assert 0.4 * solid < dashed < 0.85 * solid


def test_a_millimetre_is_as_long_up_as_across() -> None:
    grid = Grid((3, 40, 20), np.diag([5.0, 1.0, 2.0, 1.0]))
    mask = np.zeros(grid.shape, np.uint8)
    mask[1, 10:30, 5:15] = 1  # 20 mm by 20 mm
    zeros = np.zeros(grid.shape, np.uint8)
    picture = overlay(Volume(zeros.astype(np.float32), grid), Volume(mask, grid), Volume(zeros, grid), {1: "a"})
    assert picture.caption.startswith("sagittal slice 2 of 3")
    rows, columns = np.nonzero(np.ptp(brightness(picture.uri), axis=2) > 0.2)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.03)


def test_an_empty_reference_shows_the_false_prediction() -> None:
    grid = Grid((12, 12, 5), np.diag([1.0, 1.0, 3.0, 1.0]))
    found = np.zeros(grid.shape, np.uint8)
    found[3:6, 3:6, 3] = 1
    zeros = np.zeros(grid.shape, np.uint8)
    picture = overlay(Volume(zeros.astype(np.float32), grid), Volume(zeros, grid), Volume(found, grid), {1: "a"})
    assert picture.caption.startswith("axial slice 4 of 5")


def test_a_task_without_logged_losses_has_no_curve() -> None:
    assert loss_curve("a", [], []) is None


def test_validation_losses_have_their_own_line_and_name() -> None:
    picture = loss_curve("a", [(step, 1.0) for step in range(1, 451)], [(450, 0.5)])
    assert picture is not None
    assert [name for name, _, _ in picture.legend] == ["training", "validation"]
    assert picture.caption == "a: loss, means of about 3 steps"


@pytest.mark.parametrize(
    "figure",
    [
        ScatterFigure("a", (), ()),
        BlandAltmanFigure("a", (), (), ()),
        RocFigure("a", ()),
        StripFigure("a", (("b", ()),)),
    ],
)
def test_a_figure_without_points_is_left_out(figure: Figure) -> None:
    assert draw(figure) is None


def test_differences_are_drawn_with_their_bias_and_limits() -> None:
    picture = draw(BlandAltmanFigure("volume", (1.0, 2.0), (0.1, -0.2), (-0.5, -0.05, 0.4), "ml"))
    assert picture is not None
    assert picture.caption == "volume (ml)"
    assert [(name, dashes) for name, _, dashes in picture.legend] == [
        ("bias", "solid"),
        ("95 % limits of agreement", "dashed"),
    ]
    single = draw(BlandAltmanFigure("volume", (1.0,), (0.1,), (0.1,)))
    assert single is not None
    assert [name for name, *_ in single.legend] == ["bias"]


def test_names_of_curves_are_left_to_the_page() -> None:
    # a class may be called anything, which a picture's font or formula reader could stumble over
    picture = draw(
        RocFigure("grade: ROC", (("$\\frac{", (0.0, 1.0), (0.0, 1.0)), ("\U0001f600", (0.0, 1.0), (1.0, 1.0))))
    )
    assert picture is not None
    assert [name for name, _, _ in picture.legend] == ["$\\frac{", "\U0001f600"]


def test_calibration_is_drawn_with_a_legend_and_without_points_not_at_all() -> None:
    points = tuple(CalibrationPoint(p, p**2, (p**2 / 2, (1 + p**2) / 2)) for p in (0.1, 0.5, 0.9))
    picture = draw(CalibrationFigure("grade: calibration", (("high", points), ("high, calibrated", points))))
    assert picture is not None
    assert picture.uri.startswith("data:image/svg+xml;base64,")
    assert [name for name, *_ in picture.legend] == ["high", "high, calibrated"]
    assert len({colour for _, colour, _ in picture.legend}) == 2
    assert picture.caption.startswith("grade: calibration")
    assert draw(CalibrationFigure("grade: calibration", ())) is None


def test_survival_of_groups_is_drawn_in_steps_with_a_legend() -> None:
    groups = (("lower risk", (0.0, 3.0, 9.0), (1.0, 0.8, 0.5)), ("higher risk", (0.0, 1.0, 5.0), (1.0, 0.5, 0.2)))
    picture = draw(KaplanMeierFigure("death: halves", groups))
    assert picture is not None
    assert [(name, dashes) for name, _, dashes in picture.legend] == [
        ("lower risk", "solid"),
        ("higher risk", "dashed"),
    ]
    assert picture.caption == "death: halves; Kaplan-Meier"
    assert draw(KaplanMeierFigure("death: halves", ())) is None
    told = draw(KaplanMeierFigure("death: halves", groups, ((3.0, 9.0), (1.0, 5.0)), "days"))
    assert told is not None
    assert told.caption.startswith("death: halves; Kaplan-Meier, time in the unit of the column days; below, ")


def test_who_is_at_risk_is_counted_at_each_tick_of_the_curves() -> None:
    above, below = Canvas().subplots(2, 1)
    above.set_xticks([0, 5, 10, 15])
    above.set_xlim(0, 10)
    _numbers_at_risk(below, above, ((3.0, 5.0, 9.0), (1.0, 10.0)))
    found = [(*text.get_position(), text.get_text()) for text in below.texts]
    assert found == [(0, 0, "3"), (5, 0, "2"), (10, 0, "0"), (0, 1, "2"), (5, 1, "1"), (10, 1, "1")]
    assert below.get_xlim() == above.get_xlim()


def test_a_froc_curve_is_drawn_and_one_without_points_is_not() -> None:
    picture = draw(FrocFigure("nodule: FROC", (0.125, 1.0, 8.0), (0.2, 0.5, 0.9)))
    assert picture is not None
    assert picture.caption == "nodule: FROC"
    assert picture.uri.startswith("data:image/svg+xml")
    assert draw(FrocFigure("nodule: FROC", (), ())) is None


ONE, OTHER = CalibrationPoint(0.2, 0.4, (0.1, 0.6)), CalibrationPoint(0.7, 0.8, (0.5, 0.9))


@pytest.mark.parametrize(
    ("figure", "across", "up", "points"),
    [
        (ScatterFigure("a", (1.0, 2.0), (4.0, 8.0)), "observed", "predicted", [[1, 4], [2, 8]]),
        (
            BlandAltmanFigure("a", (1.0, 2.0), (4.0, 8.0), (3.0, 6.0, 9.0)),
            "mean of observed and predicted",
            "predicted − observed",
            [[1, 4], [2, 8]],
        ),
        (
            RocFigure("a", (("b", (0.0, 0.1, 1.0), (0.0, 0.9, 1.0)),)),
            "false positive rate",
            "true positive rate",
            [[0, 0], [0.1, 0.9], [1, 1]],
        ),
        (
            CalibrationFigure("a", (("b", (ONE, OTHER)),)),
            "predicted probability",
            "observed share",
            [[0.2, 0.4], [0.7, 0.8]],
        ),
        (
            FrocFigure("a", (0.125, 8.0), (0.2, 0.9)),
            "false positives per case",
            "sensitivity",
            [[0.125, 0.2], [8, 0.9]],
        ),
        (
            KaplanMeierFigure("a", (("b", (0.0, 3.0), (1.0, 0.6)),)),
            "time",
            "share without the event",
            [[0, 1], [3, 0.6]],
        ),
    ],
    ids=["scatter", "Bland-Altman", "ROC", "calibration", "FROC", "Kaplan-Meier"],
)
def test_points_lie_where_the_names_of_the_axes_say(
    figure: Figure, across: str, up: str, points: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Canvas] = []
    monkeypatch.setattr(pictures, "_uri", lambda canvas, kind: drawn.append(canvas) or "data:")
    draw(figure)
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (across, up)
    if isinstance(figure, ScatterFigure | BlandAltmanFigure):
        found = axes.collections[0].get_offsets()
    else:
        (line,) = [line for line in axes.lines if line.get_color() == ON_WHITE[0]]
        found = line.get_xydata()
    np.testing.assert_allclose(np.asarray(found), points)
    if isinstance(figure, BlandAltmanFigure):
        lines = [(line.get_ydata()[0], line.get_linestyle()) for line in axes.lines if line.get_color() == ON_WHITE[1]]
        assert lines == [(3.0, "--"), (6.0, "-"), (9.0, "--")]
