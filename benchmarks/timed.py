"""What benchmarks at equal time share: trainings of a given time, rows kept as they come, paired differences."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

import medmtl

METRICS = {"segmentation": "dice", "classification": "auc", "regression": "skill", "survival": "c_index"}
SHORT = 60  # steps of the run that tells what a step costs
RESAMPLES = 10_000
ClockKind = Literal["wall", "processor"]
Row = dict[str, Any]


def processor_time() -> float:
    """Seconds that this process and its ended children have computed."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


CLOCKS: Mapping[ClockKind, Callable[[], float]] = {"wall": time.perf_counter, "processor": processor_time}


class Took(NamedTuple):
    """Seconds of a training.

    Attributes:
        step: mean, without steps that held something else, such as a look at the heads in between.
        whole: from the first step's end to the end of the run, which holds its last look at the validation cases.
    """

    step: float
    whole: float


@dataclass(frozen=True)
class Training:
    """A training of the package, of any length.

    Attributes:
        config: the experiment.
        place: folder of the run; what lies there is replaced.
        overrides: dotted key -> value, without the length.
        fold: of the split.
        clock: what times are measured with. By processor time the run's own process loads its batches, whatever
            ``overrides`` say: another's time counts only when it has ended.
    """

    config: Path
    place: Path
    overrides: Mapping[str, Any]
    fold: int = 0
    clock: ClockKind = "processor"

    def fit(self, **length: float) -> Took:
        """Train for ``steps`` or ``minutes``."""
        shutil.rmtree(self.place, ignore_errors=True)
        now = CLOCKS[self.clock]
        ends: list[float] = []

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            if stage == "train":
                ends.append(now())

        loader = {"plan.workers": 0} if self.clock == "processor" else {}
        medmtl.train(
            self.config,
            out=self.place,
            device="cpu",
            fold=self.fold,
            overrides={**self.overrides, **loader, **{f"training.{name}": value for name, value in length.items()}},
            progress=tell,
        )
        steps = np.diff(ends)
        # samples are as large as their cases, so that a median would miss the large ones
        return Took(float(steps[steps < 3 * np.median(steps)].mean()), now() - ends[0])

    def steps_in(self, seconds: float) -> int:
        """Steps after which a run ends in so many seconds by the clock, by a short run.

        What a run costs whatever its length, such as its last look at the validation cases, is taken off first.
        """
        short = self.fit(steps=SHORT)
        once = short.whole - (SHORT - 1) * short.step
        return max(2, 1 + round((seconds - once) / short.step))


def alone(document: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A configuration with one of its tasks, without the options that name another."""
    kept = {key: value for key, value in document["tasks"][task].items() if key not in ("derived_from", "guided_by")}
    return {**document, "tasks": {task: kept}}


def evaluated(place: Path) -> dict[str, Any]:
    """Task -> what its validation cases' ``metrics.json`` says, after an evaluation."""
    medmtl.evaluate(place, device="cpu")
    tasks: dict[str, Any] = json.loads((place / "evaluation" / "val" / "metrics.json").read_text())["tasks"]
    return tasks


def headlines(tasks: Mapping[str, Any]) -> dict[str, Row]:
    """Task -> the estimate that it is judged by."""
    return {name: task["metrics"][METRICS[task["kind"]]] for name, task in tasks.items()}


def case_dice(place: Path, masks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Case -> mask task -> its Dice, where it has one, of an evaluated run."""
    with (place / "evaluation" / "val" / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["case_id"]: {name: float(value) for name in masks if (value := row.get(f"{name}/dice"))} for row in rows
    }


def read_rows(file: Path) -> list[Row]:
    """Rows written so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_row(file: Path, row: Row) -> None:
    """Write one more row."""
    with file.open("a") as rows:
        rows.write(json.dumps(row) + "\n")


def paired(pairs: Sequence[tuple[Row, Row]]) -> dict[str, tuple[float, float, float, int]]:
    """Mask task, and their mean, -> mean difference in Dice of the second rows to the first, with a 95 % interval.

    Of each case the mean over its pairs (seeds) is taken first; the interval is a percentile bootstrap over cases,
    given the trained models. A mask that has no Dice in either of two rows is left out.

    Args:
        pairs: rows of one fold and seed each, with ``dice`` of :func:`case_dice`.

    Returns:
        Mean, lower and upper end, and number of cases.
    """
    found: dict[str, dict[str, list[float]]] = {"": {}}
    for first, second in pairs:
        for case, own in second["dice"].items():
            other = first["dice"].get(case, {})
            changes = {name: own[name] - other[name] for name in own if name in other}
            for name, change in changes.items():
                found.setdefault(name, {}).setdefault(case, []).append(change)
            if changes:
                found[""].setdefault(case, []).append(float(np.mean(list(changes.values()))))
    return {name: _bootstrap([float(np.mean(v)) for v in cases.values()]) for name, cases in found.items() if cases}


def _bootstrap(values: Sequence[float]) -> tuple[float, float, float, int]:
    held = np.array(values)
    drawn = np.random.default_rng(0).integers(0, len(held), (RESAMPLES, len(held)))
    low, high = np.percentile(held[drawn].mean(axis=1), [2.5, 97.5])
    return float(held.mean()), float(low), float(high), len(held)


def with_ends(estimate: tuple[float, float, float, int]) -> str:
    """A difference with its interval."""
    mean, low, high, _ = estimate
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def spread(values: Sequence[float | None]) -> str:
    """Median with range; a run without a value is counted out."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:.3f}" if known else "none"
    return f"{median(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def line_of(cells: Sequence[Any]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def head_of(names: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [line_of(names), "|---" * len(names) + "|"]
