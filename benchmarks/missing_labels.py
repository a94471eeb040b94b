"""Half of each task's labels blanked, or none: joint runs on the rest, beside a run of each task on its labelled cases.

    python benchmarks/missing_labels.py CONFIG --table cohort.csv --out FOLDER --steps 1000 [--seeds 0 1 2] [--fold 0]
                                        [--arms even labelled alone] [--threads 1] [--share 0.5] [--tasks ...]

The joint runs draw cases evenly or by their labels (``training.sampling``). Of one seed all arms see the same labels,
and all take the same number of steps; a seed also decides which labels are blanked. Validation cases keep all their
labels and are those of a fold of the full table. With ``--share 0`` nothing is blanked: what joint training costs a
task, or gives it. A task alone has no mask of another to read; ``--tasks`` names those that are run alone, by default
all. Rows are written as they come, a call that is repeated goes on where it stopped, and two calls may share FOLDER
with other seeds. The table that is printed is also written to FOLDER/missing_labels.md.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from timed import (
    Row,
    Training,
    add_row,
    alone,
    case_dice,
    evaluated,
    head_of,
    headlines,
    line_of,
    paired,
    read_rows,
    spread,
    with_ends,
)

from medmtl import config
from medmtl.build import build_tasks
from medmtl.config import Config
from medmtl.data.formats import strict_yaml
from medmtl.training.start import make_ready

ARMS = ("even", "labelled", "alone")


def main() -> None:
    """Run what is not in the file yet, and print the table after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.5, help="of each task's training labels, blanked")
    parser.add_argument("--tasks", nargs="+", default=None, help="run alone; all by default")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    resolved = config.load(given.config, {"cohort.table": str(given.table)})
    columns = {name: task.columns[0] for name, task in build_tasks(resolved).items()}
    rows_file = given.out / f"rows-{given.steps}-{given.fold}-{given.share:g}.jsonl"
    for seed in given.seeds:
        place = given.out / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        changes = blank(resolved, columns, place, random.Random(seed), given)
        for arm in given.arms:
            for task in given.tasks or columns if arm == "alone" else [None]:
                wanted = {"arm": arm, "seed": seed, "task": task}
                if not any(wanted.items() <= row.items() for row in read_rows(rows_file)):
                    add_row(rows_file, {**wanted, **run(given, place, seed, arm, task, changes[task])})
        text = table(read_rows(rows_file), list(columns), given.steps)
        (given.out / "missing_labels.md").write_text(text)
        print(text, flush=True)


def blank(
    resolved: Config, columns: dict[str, str], out: Path, rng: random.Random, given: argparse.Namespace
) -> dict[str | None, dict[str, Any]]:
    """Write the blanked table, and one table per task with its labelled training cases only.

    Returns:
        Task, or None for the joint runs, -> overrides that name its table.
    """
    fold = make_ready(resolved).splits.folds[given.fold]
    part = {**dict.fromkeys(fold.train, "train"), **dict.fromkeys(fold.val, "val")}
    source = resolved.cohort.table
    with source.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row[resolved.cohort.case] in part]
    paths = [
        *resolved.cohort.columns.values(),
        *(c for c in columns.values() if rows[0][c].endswith((".nii", ".nii.gz"))),
    ]
    for row in rows:
        row["split"] = part[row[resolved.cohort.case]]
        row.update({column: str((source.parent / row[column]).resolve()) for column in paths})
        if row["split"] == "train":
            row.update({column: "" for column in dict.fromkeys(columns.values()) if rng.random() < given.share})
    shared = {"cohort.roots": [str(source.parent.resolve())], "split.column": "split"}
    found: dict[str | None, dict[str, Any]] = {None: {**shared, "cohort.table": write(out / "joint.csv", rows)}}
    for task, column in columns.items():
        kept = [row for row in rows if row[column]]
        found[task] = {**shared, "cohort.table": write(out / f"{task}.csv", kept)}
    return found


def write(path: Path, rows: list[dict[str, str]]) -> str:
    """Write rows as CSV; returns the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def run(given: argparse.Namespace, place: Path, seed: int, arm: str, task: str | None, changes: dict[str, Any]) -> Row:
    """Train and score one arm, or one task of the arm ``alone``."""
    source = given.config
    if task is not None:
        source = place / f"{task}.yaml"
        source.write_text(strict_yaml.dump(alone(strict_yaml.parse(given.config.read_text()).data, task)))
    overrides = {
        **changes,
        "cache.folder": str((given.out / "cache").resolve()),
        "training.seed": seed,
        "training.sampling": "even" if task is not None else arm,
        "training.checkpoint_every": 100_000,
        "plan.threads": given.threads,
    }
    training = Training(source, place / "run", overrides)
    took = training.fit(steps=given.steps)
    tasks = evaluated(training.place)
    masks = [name for name, found in tasks.items() if found["kind"] == "segmentation"]
    scores = {name: estimate["value"] for name, estimate in headlines(tasks).items()}
    dice = case_dice(training.place, masks)
    shutil.rmtree(training.place)
    return {"seconds": took.whole, "scores": scores, "dice": dice}


def table(rows: list[Row], tasks: Sequence[str], steps: int) -> str:
    """Each task's score in the joint runs and in the run of its own, and the masks' paired differences."""
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    names = {"even": "joint, drawn evenly", "labelled": "joint, sampling: labelled", "alone": "alone"}
    lines = [
        f"{steps} steps each; median of the seeds (least to most):",
        "",
        *head_of(["task", *(names[arm] for arm in arms)]),
    ]
    for task in tasks:
        held = {arm: [row for row in rows if row["arm"] == arm and task in row["scores"]] for arm in arms}
        lines.append(line_of([task, *(spread([row["scores"][task] for row in held[arm]]) for arm in arms)]))
    seconds = {arm: [sum(row["seconds"] for row in own) for own in by_seed(rows, arm)] for arm in arms}
    lines.append(line_of(["seconds in all", *(f"{median(seconds[arm]):.0f}" for arm in arms)]))
    for arm in arms[:-1] if arms[-1] == "alone" else []:
        joint = {row["seed"]: row for row in rows if row["arm"] == arm}
        pairs = [(row, joint[row["seed"]]) for row in rows if row["arm"] == "alone" and row["seed"] in joint]
        lines += [
            f"\nDice of {name}, {names[arm]}, minus alone: {with_ends(value)}, {value[3]} cases, mean of the seeds"
            for name, value in paired(pairs).items()
            if name
        ]
    return "\n".join(lines) + "\n"


def by_seed(rows: list[Row], arm: str) -> list[list[Row]]:
    """The rows of an arm, seed by seed."""
    own = [row for row in rows if row["arm"] == arm]
    return [[row for row in own if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in own)]


if __name__ == "__main__":
    main()
