"""Half of each task's labels blanked: joint runs on what is left, beside a run of each task on its labelled cases.

    python benchmarks/missing_labels.py CONFIG --table cohort.csv --out FOLDER --steps 200 [--seed 0] [--fold 0]

One joint run draws cases evenly, the other by their labels (training.sampling). All see the same labels, the same
number of steps and the same plan; validation cases keep all their labels and are those of a fold of the full table. The
table that is printed is also written to FOLDER/missing_labels.md.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path
from typing import Any

from timed import alone

from medmtl import api, config
from medmtl.build import build_tasks
from medmtl.config import Config
from medmtl.data.formats import strict_yaml
from medmtl.training.start import make_ready

SHARE = 0.5
SAMPLINGS = ("even", "labelled")


def main() -> None:
    """Run everything that is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    overrides = {"cohort.table": str(given.table), "training.steps": given.steps}
    resolved = config.load(given.config, overrides)
    columns = {name: task.columns[0] for name, task in build_tasks(resolved).items()}
    blanked, alone = blank(resolved, columns, given.out, given.seed, given.fold)
    found = {
        f"joint, {sampling}": scores(
            given.config, given.out / f"joint-{sampling}", {**overrides, **blanked, "training.sampling": sampling}
        )
        for sampling in SAMPLINGS
    }
    for task, changes in alone.items():
        found[task] = scores(given.config, given.out / task, {**overrides, **changes}, only=task)
    text = table(found, columns, given.steps)
    (given.out / "missing_labels.md").write_text(text)
    print(text)


def blank(
    resolved: Config, columns: dict[str, str], out: Path, seed: int, number: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the blanked table, and one table per task with its labelled training cases only."""
    fold = make_ready(resolved).splits.folds[number]
    part = {**dict.fromkeys(fold.train, "train"), **dict.fromkeys(fold.val, "val")}
    source = resolved.cohort.table
    with source.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row[resolved.cohort.case] in part]
    rng = random.Random(seed)
    paths = [
        *resolved.cohort.columns.values(),
        *(c for c in columns.values() if rows[0][c].endswith((".nii", ".nii.gz"))),
    ]
    for row in rows:
        row["split"] = part[row[resolved.cohort.case]]
        row.update({column: str((source.parent / row[column]).resolve()) for column in paths})
        if row["split"] == "train":
            row.update({column: "" for column in dict.fromkeys(columns.values()) if rng.random() < SHARE})
    roots = {"cohort.roots": [str(source.parent.resolve())], "split.column": "split"}
    alone = {}
    for task, column in columns.items():
        kept = [row for row in rows if row[column]]
        alone[task] = {**roots, "cohort.table": write(out / f"{task}.csv", kept)}
    return {**roots, "cohort.table": write(out / "joint.csv", rows)}, alone


def write(path: Path, rows: list[dict[str, str]]) -> str:
    """Write rows as CSV; returns the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def scores(source: Path, run: Path, overrides: dict[str, Any], only: str | None = None) -> dict[str, Any]:
    """Train and evaluate, or read what an earlier call left; returns the tasks of ``metrics.json``."""
    text = source
    if only is not None:
        document = alone(strict_yaml.parse(source.read_text()).data, only)
        text = run.parent / f"{only}.yaml"
        text.write_text(strict_yaml.dump(document))
    if not (run / "manifest.json").exists():
        api.train(text, run, device="cpu", overrides=overrides)
    return dict(api.evaluate(run, device="cpu")["val"].metrics["tasks"])


def table(found: dict[str, dict[str, Any]], columns: dict[str, str], steps: int) -> str:
    """A Markdown table: each task's metrics in the joint runs and in the run of its own."""
    joint = [f"joint, {sampling}" for sampling in SAMPLINGS]
    lines = [
        f"| task | metric | {' | '.join(joint)} | alone, its labelled cases ({steps} steps each) |",
        "|---|---|" + "---|" * (len(joint) + 1),
    ]
    for task in columns:
        for metric in found[task][task]["metrics"]:
            runs = [found[name].get(task, {"metrics": {}})["metrics"] for name in (*joint, task)]
            if "/" not in metric and all(metric in run for run in runs):
                lines.append(f"| {task} | {metric} | " + " | ".join(cell(run[metric]) for run in runs) + " |")
    return "\n".join(lines) + "\n"


def cell(entry: dict[str, Any]) -> str:
    """A value with its interval."""
    if entry["value"] is None:
        return "not computable"
    interval = f" [{entry['ci95'][0]:.3g}, {entry['ci95'][1]:.3g}]" if entry["ci95"] else ""
    return f"{entry['value']:.3g}{interval}"


if __name__ == "__main__":
    main()
