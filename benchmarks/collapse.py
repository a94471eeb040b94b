"""Do case heads collapse, and is it said? Heads trained as for segmentation, as by default, and on permuted labels.

    python benchmarks/collapse.py FOLDER [--config CONFIG --table cohort.csv] [--fold 0] [--steps N] [--seeds 3]

Three arms, each with some seeds: ``sgd``, one rate of 0.01 and momentum 0.99 for trunk and heads and no loss scale,
which is what a head bolted onto a segmentation training gets; ``default``; and ``permuted``, the default with the
training cases' labels dealt out anew among the labelled ones. Without --config the cohort is ``medmtl synth --preset
easy --cases 300``, made in FOLDER once. The table gives the verdict on each case task at the end, with the early one
where it was another. Finished runs are kept in FOLDER as lines of JSON, and a call that is repeated goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path
from typing import Any

from medmtl import api, config
from medmtl.build import build_tasks
from medmtl.run_folder import RunFolder
from medmtl.training.start import make_ready

CASES = 300  # 240 in training, of which the probe sees 192
SGD = {
    "training.optimiser": "sgd",
    "training.lr": 0.01,
    "training.head_lr": 0.01,
    "weighting.loss_scale": "none",
}
ARMS: dict[str, dict[str, Any]] = {"sgd": SGD, "default": {}, "permuted": {}}


def main() -> None:
    """Train what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    settings = given.config or given.folder / "cohort" / "config.yaml"
    if not settings.exists():
        api.synth(given.folder / "cohort", cases=CASES, preset="easy")
    given.folder.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Any] = {"cache.folder": str(given.folder.resolve() / "cache")}
    if given.table is not None:
        changes["cohort.table"] = str(given.table.resolve())
    resolved = config.load(settings, changes)
    columns = {name: task.columns[0] for name, task in build_tasks(resolved).items() if not task.voxel}
    steps = given.steps or resolved.training.steps
    done_file = given.folder / f"collapse-{steps}.jsonl"
    done = [json.loads(line) for line in done_file.read_text().splitlines()] if done_file.exists() else []
    print("| arm | seed | " + " | ".join(columns) + " |\n|---|---|" + "---|" * len(columns))
    for arm in ARMS:
        for seed in range(given.seeds):
            found = next((row for row in done if (row["arm"], row["seed"]) == (arm, seed)), None)
            if found is None:
                own = {**changes, **ARMS[arm], "training.steps": steps, "training.seed": seed}
                if arm == "permuted":
                    own |= permuted(resolved, columns, given.folder / f"permuted-{seed}.csv", given.fold, seed)
                # whose file of splits holds one fold
                fold = 0 if arm == "permuted" else given.fold
                verdicts = run(settings, given.folder / f"{arm}-{seed}-{steps}", own, fold)
                found = {"arm": arm, "seed": seed, "verdicts": verdicts}
                with done_file.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            cells = [told(found["verdicts"].get(task, [])) for task in columns]
            print(f"| {arm} | {seed} | " + " | ".join(cells) + " |", flush=True)


def run(settings: Path, out: Path, overrides: dict[str, Any], fold: int) -> dict[str, list[dict[str, Any]]]:
    """Train, or go on with what an earlier call began; returns the verdicts on each case task, in order."""
    api.train(settings, out, device="cpu", fold=fold, overrides=overrides, resume=out.exists())
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for record in RunFolder.open(out).read_log():
        if "collapse" in record:
            found = {"step": record["step"], **record["collapse"]}
            verdicts.setdefault(found.pop("task"), []).append(found)
    return verdicts


def permuted(resolved: config.Config, columns: dict[str, str], table: Path, number: int, seed: int) -> dict[str, Any]:
    """Write the table with the training cases' labels dealt out anew; validation cases are those of the true one."""
    fold = make_ready(resolved).splits.folds[number]
    source = resolved.cohort.table
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    train = set(fold.train)
    rng = random.Random(seed)
    for column in columns.values():
        labelled = [row for row in rows if row[column] and row[resolved.cohort.case] in train]
        values = [row[column] for row in labelled]
        rng.shuffle(values)
        for row, value in zip(labelled, values, strict=True):
            row[column] = value
    for row in rows:
        files = [column for column, value in row.items() if value.endswith((".nii", ".nii.gz"))]
        row.update({column: str((source.parent / row[column]).resolve()) for column in files})
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    splits = table.with_suffix(".json")
    splits.write_text(json.dumps([{"train": list(fold.train), "val": list(fold.val)}]))
    roots = [str(source.parent.resolve())]
    return {"cohort.table": str(table), "cohort.roots": roots, "split.file": str(splits)}


def told(verdicts: list[dict[str, Any]]) -> str:
    """The last verdict with its figures, and an earlier one that differs."""
    if not verdicts:
        return "none: too few labelled cases"
    last = verdicts[-1]
    text = f"{last['verdict']} (spread {last['spread']:.2f}, probe R2 {last['probe_r2']:.2f})"
    return text + "".join(
        f"; at step {one['step']} {one['verdict']}" for one in verdicts[:-1] if one["verdict"] != last["verdict"]
    )


if __name__ == "__main__":
    main()
