"""The report's pictures: drawn off screen and returned as data URIs, equal bytes for equal input."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from medmtl.data.geometry import canonical
from medmtl.data.volume import Grid, Volume
from medmtl.metrics.figures import (
    BlandAltmanFigure,
    CalibrationFigure,
    Figure,
    FrocFigure,
    KaplanMeierFigure,
    RocFigure,
    ScatterFigure,
)

# Okabe and Ito's palette, which colour-blind readers can tell apart; first on white, then on a grey scan
ON_WHITE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
ON_SCAN = ("#56B4E9", "#E69F00", "#F0E442", "#CC79A7", "#009E73", "#D55E00")
DASHES: tuple[str, ...] = ("solid", "dashed", "dotted", "dashdot")
STYLE: dict[str, Any] = {
    "svg.hashsalt": "medmtl",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3d434d",
    "xtick.color": "#3d434d",
    "ytick.color": "#3d434d",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
}
GUIDE = "#8a8f98"
CURVE_POINTS = 150
PLANES = ("sagittal", "coronal", "axial")
SIDES = ("the front is on the left", "the patient's right is on the left", "the patient's right is on the left")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        uri: the picture itself, as a data URI.
        caption: what it shows, without names of cases.
        case_id: the case that it shows, or None.
        legend: (name, colour, line style) of what is drawn; names may hold any character, so the page writes them.
    """

    uri: str
    caption: str
    case_id: str | None = None
    legend: tuple[tuple[str, str, str], ...] = ()


def loss_curve(
    task: str, training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]
) -> Picture | None:
    """Training loss as means over neighbouring steps, and the validation losses.

    Args:
        task: name of the task.
        training: (step, loss) of every step that had a labelled case.
        validation: (step, loss).

    Returns:
        The picture, or None where nothing was logged.
    """
    if not training:
        return None
    parts = np.array_split(np.array(training, dtype=np.float64), min(len(training), CURVE_POINTS))
    means = np.array([part.mean(axis=0) for part in parts])
    with style.context(["default", STYLE]):
        canvas, axes = _axes(4.2, 2.8)
        axes.plot(means[:, 0], means[:, 1], color=ON_WHITE[0], linewidth=1.4)
        if validation:
            steps, losses = zip(*validation, strict=True)
            axes.plot(steps, losses, color=ON_WHITE[1], linewidth=1.4, linestyle="dashed", marker="o", markersize=3.5)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        uri = _uri(canvas, "svg")
    legend = [("training", ON_WHITE[0], "solid")]
    if validation:
        legend.append(("validation", ON_WHITE[1], "dashed"))
    each = f", means of about {len(parts[0])} steps" if len(parts[0]) > 1 else ""
    return Picture(uri, f"{task}: loss{each}", legend=tuple(legend))


def step_curves(
    caption: str,
    label: str,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    *,
    signed: bool,
) -> Picture:
    """What was measured at some steps, one line per name, each as means over neighbouring measurements.

    Args:
        caption: what it shows.
        label: of the upright axis.
        curves: name -> (step, value), at least one each and at most six names.
        signed: whether values are from -1 to 1; otherwise they are above 0, on a scale of powers of ten.
    """
    with style.context(["default", STYLE]):
        canvas, axes = _axes(4.2, 2.8)
        if signed:
            axes.axhline(0, color=GUIDE, linewidth=1)
        legend = []
        for index, (name, points) in enumerate(curves.items()):
            colour, dashes = ON_WHITE[index % len(ON_WHITE)], DASHES[index % len(DASHES)]
            parts = np.array_split(np.array(points, dtype=np.float64), min(len(points), CURVE_POINTS))
            means = np.array([part.mean(axis=0) for part in parts])
            marker = "o" if len(means) == 1 else None
            axes.plot(means[:, 0], means[:, 1], color=colour, linestyle=dashes, linewidth=1.4, marker=marker)
            legend.append((name, colour, dashes))
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        if signed:
            axes.set_ylim(-1.05, 1.05)
        else:
            axes.set_yscale("log")
        uri = _uri(canvas, "svg")
    return Picture(uri, caption, legend=tuple(legend))


def draw(figure: Figure) -> Picture | None:
    """A task's figure, or None where it holds nothing to draw."""
    with style.context(["default", STYLE]):
        if isinstance(figure, ScatterFigure):
            return _scatter(figure) if figure.observed else None
        if isinstance(figure, BlandAltmanFigure):
            return _bland_altman(figure) if figure.means else None
        if isinstance(figure, RocFigure):
            return _roc(figure) if figure.curves else None
        if isinstance(figure, CalibrationFigure):
            return _calibration(figure) if figure.curves else None
        if isinstance(figure, FrocFigure):
            return _froc(figure) if figure.sensitivities else None
        if isinstance(figure, KaplanMeierFigure):
            return _kaplan_meier(figure) if figure.groups else None
        return _strips(figure.title, figure.groups, figure.unit) if any(v for _, v in figure.groups) else None


def _scatter(figure: ScatterFigure) -> Picture:
    canvas, axes = _axes(4.2, 4.0)
    low = min(*figure.observed, *figure.predicted)
    high = max(*figure.observed, *figure.predicted)
    margin = 0.05 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=GUIDE, linewidth=1, linestyle="dashed")
    axes.scatter(figure.observed, figure.predicted, s=22, color=ON_WHITE[0], alpha=0.7, linewidths=0)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="observed", ylabel="predicted")
    caption = f"{figure.title}{_in(figure.unit)}; dashed: observed = predicted"
    return Picture(_uri(canvas, "svg"), caption)


def _bland_altman(figure: BlandAltmanFigure) -> Picture:
    canvas, axes = _axes(4.2, 4.0)
    axes.axhline(0, color=GUIDE, linewidth=1, linestyle="dotted")
    middle = len(figure.lines) // 2
    for index, height in enumerate(figure.lines):
        axes.axhline(height, color=ON_WHITE[1], linewidth=1.4, linestyle="solid" if index == middle else "dashed")
    axes.scatter(figure.means, figure.differences, s=22, color=ON_WHITE[0], alpha=0.7, linewidths=0)
    axes.set(xlabel="mean of observed and predicted", ylabel="predicted − observed")
    legend = [("bias", ON_WHITE[1], "solid")]
    if len(figure.lines) > 1:
        legend.append(("95 % limits of agreement", ON_WHITE[1], "dashed"))
    return Picture(_uri(canvas, "svg"), f"{figure.title}{_in(figure.unit)}", legend=tuple(legend))


def _roc(figure: RocFigure) -> Picture:
    canvas, axes = _axes(4.2, 4.0)
    axes.plot((0, 1), (0, 1), color=GUIDE, linewidth=1, linestyle="dotted")
    legend = []
    for index, (name, false_rates, true_rates) in enumerate(figure.curves):
        colour = ON_WHITE[index % len(ON_WHITE)]
        dashes = DASHES[index // len(ON_WHITE) % len(DASHES)]
        axes.plot(false_rates, true_rates, color=colour, linestyle=dashes, linewidth=1.6)
        legend.append((name, colour, dashes))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return Picture(_uri(canvas, "svg"), figure.title, legend=tuple(legend))


def _froc(figure: FrocFigure) -> Picture:
    canvas, axes = _axes(4.6, 3.4)
    axes.plot(figure.false_per_case, figure.sensitivities, color=ON_WHITE[0], linewidth=1.6)
    axes.set_xscale("log", base=2)
    axes.set(ylim=(-0.02, 1.02), xlabel="false positives per case", ylabel="sensitivity")
    return Picture(_uri(canvas, "svg"), figure.title)


def _calibration(figure: CalibrationFigure) -> Picture:
    canvas, axes = _axes(4.2, 4.0)
    axes.plot((0, 1), (0, 1), color=GUIDE, linewidth=1, linestyle="dashed")
    legend = []
    for index, (name, points) in enumerate(figure.curves):
        colour, dashes = ON_WHITE[index % len(ON_WHITE)], DASHES[index % len(DASHES)]
        predicted = [point.predicted for point in points]
        observed = [point.observed for point in points]
        axes.plot(predicted, observed, color=colour, linestyle=dashes, linewidth=1.6, marker="o", markersize=3.5)
        lower, upper = zip(*(point.ci95 for point in points), strict=True)
        axes.vlines(predicted, lower, upper, color=colour, linewidth=1, alpha=0.5)
        legend.append((name, colour, dashes))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="predicted probability", ylabel="observed share")
    caption = f"{figure.title}, groups of neighbouring probabilities with 95 % intervals; dashed grey: perfect"
    return Picture(_uri(canvas, "svg"), caption, legend=tuple(legend))


def _kaplan_meier(figure: KaplanMeierFigure) -> Picture:
    canvas = Canvas(figsize=(4.6, 3.4 + 0.2 * len(figure.followed)), layout="constrained")
    heights = [17, len(figure.followed)] if figure.followed else [1]
    axes, *below = canvas.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    legend = []
    for index, (name, times, values) in enumerate(figure.groups):
        colour, dashes = ON_WHITE[index % len(ON_WHITE)], DASHES[index % len(DASHES)]
        axes.step(times, values, where="post", color=colour, linestyle=dashes, linewidth=1.6)
        legend.append((name, colour, dashes))
    axes.set(xlim=(0, None), ylim=(-0.02, 1.02), xlabel="time", ylabel="share without the event")
    caption = f"{figure.title}; Kaplan-Meier"
    if figure.column is not None:
        caption += f", time in the unit of the column {figure.column}"
    if below:
        _numbers_at_risk(below[0], axes, figure.followed)
        caption += "; below, in the order of the legend: how many are at risk"
    return Picture(_uri(canvas, "svg"), caption, legend=tuple(legend))


def _numbers_at_risk(below: Axes, axes: Axes, followed: Sequence[Sequence[float]]) -> None:
    """A row of numbers per group under the ticks of its curve's axis, in its colour."""
    first, last = axes.get_xlim()
    below.set_axis_off()
    below.set(xlim=(first, last), ylim=(len(followed) - 0.5, -0.5))
    for row, times in enumerate(followed):
        for tick in axes.get_xticks():
            if first <= tick <= last:
                count = sum(time >= tick for time in times)
                below.text(tick, row, str(count), color=ON_WHITE[row % len(ON_WHITE)], ha="center", va="center")


def _strips(title: str, groups: Sequence[tuple[str, Sequence[float]]], unit: str | None) -> Picture:
    canvas, axes = _axes(4.6, 0.9 + 0.55 * len(groups))
    rng = np.random.default_rng(0)  # only spreads points that would lie on each other
    for row, (_, values) in enumerate(groups):
        axes.scatter(
            values, row + rng.uniform(-0.18, 0.18, len(values)), s=18, color=ON_WHITE[0], alpha=0.6, linewidths=0
        )
        if values:
            axes.plot([np.median(values)] * 2, (row - 0.32, row + 0.32), color=ON_WHITE[1], linewidth=2)
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return Picture(_uri(canvas, "svg"), f"{title}{_in(unit)}; line: median")


def overlay(image: Volume, reference: Volume, predicted: Volume, names: Mapping[int, str]) -> Picture:
    """One slice of a scan with the outlines of the reference (solid) and of the prediction (dashed).

    The slice lies across the coarsest axis, where the reference is largest. It is shown as a reader expects it: front
    or head up, the patient's right on the left. Grey is the 1st to 99th percentile of the slice, and the view is
    closed in on what is outlined, to half of the slice at most.

    Args:
        image: the scan.
        reference: label values, voxel by voxel on the scan's grid.
        predicted: likewise.
        names: label value -> name.
    """
    grid = image.grid
    scan, truth, found = (_upright(volume, grid) for volume in (image, reference, predicted))
    spacing = scan.grid.spacing
    # the last of equals, which is the axial one
    axis = max((2, 1, 0), key=lambda candidate: round(spacing[candidate], 2))
    index = _largest_slice(truth.array != 0, found.array != 0, axis)
    grey, truth_RC, found_RC = (_plane(volume.array, axis, index) for volume in (scan, truth, found))
    rows, columns = (_closed_in((truth_RC != 0) | (found_RC != 0), side) for side in (0, 1))
    # rows of the picture run along the later of the two remaining axes
    column_axis, row_axis = (candidate for candidate in (0, 1, 2) if candidate != axis)
    with style.context(["default", STYLE]):
        canvas = Canvas(figsize=(3.4, 3.4), dpi=130, facecolor="black")
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        low, high = np.percentile(grey.astype(np.float64), (1, 99))
        axes.imshow(grey, cmap="gray", vmin=low, vmax=high, aspect=spacing[row_axis] / spacing[column_axis])
        legend = []
        for position, (value, name) in enumerate(names.items()):
            colour = ON_SCAN[position % len(ON_SCAN)]
            legend.append((name, colour, "solid"))
            _outline(axes, truth_RC == value, colour, "solid")
            _outline(axes, found_RC == value, colour, "dashed")
        axes.set_xlim(columns[0] - 0.5, columns[1] - 0.5)
        axes.set_ylim(rows[1] - 0.5, rows[0] - 0.5)
        uri = _uri(canvas, "png")
    caption = f"{PLANES[axis]} slice {index + 1} of {scan.grid.shape[axis]}; {SIDES[axis]}"
    return Picture(uri, caption, legend=tuple(legend))


def _upright(volume: Volume, grid: Grid) -> Volume:
    # a label file's own position may differ from the scan's by a tenth of a voxel; the voxels correspond one to one
    return canonical(Volume(volume.array, grid))


def _largest_slice(truth: Bools, found: Bools, axis: int) -> int:
    """Where the reference is largest; else the prediction; else the middle."""
    others = tuple(candidate for candidate in range(3) if candidate != axis)
    for mask in (truth, found):
        area = mask.sum(axis=others)
        if area.any():
            return int(area.argmax())
    return int(truth.shape[axis]) // 2


def _plane(array_ras: npt.NDArray[np.generic], axis: int, index: int) -> npt.NDArray[np.generic]:
    """A slice with rows from head (or front) down, and columns from the patient's right (or front) on."""
    plane: npt.NDArray[np.generic] = np.take(array_ras, index, axis=axis)
    return plane.T[::-1, ::-1]


def _closed_in(shown: Bools, side: int) -> tuple[int, int]:
    """First and last + 1 row (or column) to show."""
    size = shown.shape[side]
    used = np.flatnonzero(shown.any(axis=1 - side))
    if not len(used):
        return 0, size
    length = min(size, max(-(-size // 2), int(1.5 * (used[-1] - used[0] + 1))))
    first = int(used[0] + used[-1] + 1 - length) // 2
    first = min(max(first, 0), size - length)
    return first, first + length


def _outline(axes: Axes, mask: Bools, colour: str, dashes: str) -> None:
    if mask.any():
        # a rim of zeros closes the outline of what touches the edge
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        axes.contour(
            columns,
            rows,
            np.pad(mask, 1).astype(np.float64),
            levels=[0.5],
            colors=[colour],
            linestyles=[dashes],
            linewidths=1.6,
        )


def _axes(width: float, height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, canvas.add_subplot()


def _uri(canvas: Canvas, kind: Literal["svg", "png"]) -> str:
    buffer = io.BytesIO()
    # neither the date nor the name of the program that drew it
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    canvas.savefig(buffer, format=kind, metadata=metadata, facecolor=canvas.get_facecolor())
    media = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{media};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _in(unit: str | None) -> str:
    return f" ({unit})" if unit else ""
