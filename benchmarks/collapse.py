"""Do case heads collapse, and is it said? Heads trained as for segmentation, as by default, and on permuted labels.

    python benchmarks/collapse.py FOLDER [--steps N] [--seeds 3]

Makes ``medmtl synth --preset easy --cases 300`` in FOLDER once, and trains three arms on its fold 0, each with some
seeds: ``sgd``, one rate of 0.01 and momentum 0.99 for trunk and heads, no damping of the case heads' gradient and no
loss scale, which is what a head bolted onto a segmentation training gets; ``default``; and ``permuted``, the default
with the training cases' classes and risks dealt out anew among the labelled ones. Without --steps each takes the
configuration's. The table gives the verdict on each case task at the end, with the early one where it was another.
Finished runs are kept in FOLDER as lines of JSON, and a call that is repeated goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path
from typing import Any

from medmtl import api, config
from medmtl.run_folder import RunFolder
from medmtl.training.start import make_ready

CASES = 300  # 240 in training, of which the probe sees 192
CASE_TASKS = ("malignancy", "risk")
SGD = {
    "training.optimiser": "sgd",
    "training.lr": 0.01,
    "training.head_lr": 0.01,
    "training.head_gradient": 1.0,
    "weighting.loss_scale": "none",
}
ARMS: dict[str, dict[str, Any]] = {"sgd": SGD, "default": {}, "permuted": {}}


def main() -> None:
    """Train what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    settings = given.folder / "cohort" / "config.yaml"
    if not settings.exists():
        api.synth(given.folder / "cohort", cases=CASES, preset="easy")
    steps = given.steps or config.load(settings).training.steps
    done_file = given.folder / f"collapse-{steps}.jsonl"
    done = [json.loads(line) for line in done_file.read_text().splitlines()] if done_file.exists() else []
    print("| arm | seed | " + " | ".join(CASE_TASKS) + " |\n|---|---|" + "---|" * len(CASE_TASKS))
    for arm in ARMS:
        for seed in range(given.seeds):
            found = next((row for row in done if (row["arm"], row["seed"]) == (arm, seed)), None)
            if found is None:
                found = {"arm": arm, "seed": seed, "verdicts": run(given.folder, settings, arm, seed, steps)}
                with done_file.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            cells = [told(found["verdicts"].get(task, [])) for task in CASE_TASKS]
            print(f"| {arm} | {seed} | " + " | ".join(cells) + " |", flush=True)


def run(folder: Path, settings: Path, arm: str, seed: int, steps: int) -> dict[str, list[dict[str, Any]]]:
    """Train, or go on with what an earlier call began; returns the verdicts on each case task, in order."""
    overrides = {**ARMS[arm], "training.steps": steps, "training.seed": seed}
    if arm == "permuted":
        overrides |= permuted(settings, folder / f"permuted-{seed}.csv", seed)
    out = folder / f"{arm}-{seed}-{steps}"
    api.train(settings, out, device="cpu", overrides=overrides, resume=out.exists())
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for record in RunFolder.open(out).read_log():
        if "collapse" in record:
            found = {"step": record["step"], **record["collapse"]}
            verdicts.setdefault(found.pop("task"), []).append(found)
    return verdicts


def permuted(settings: Path, table: Path, seed: int) -> dict[str, Any]:
    """Write the table with the training cases' labels dealt out anew; the split stays that of the true one."""
    resolved = config.load(settings)
    fold = make_ready(resolved).splits.folds[0]
    source = resolved.cohort.table
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    part = {**dict.fromkeys(fold.train, "train"), **dict.fromkeys(fold.val, "val")}
    rng = random.Random(seed)
    for task in CASE_TASKS:
        labelled = [row for row in rows if row[task] and part[row["case_id"]] == "train"]
        values = [row[task] for row in labelled]
        rng.shuffle(values)
        for row, value in zip(labelled, values, strict=True):
            row[task] = value
    for row in rows:
        row["split"] = part[row["case_id"]]
        row.update(
            {column: str((source.parent / row[column]).resolve()) for column in ("image", "lesion") if row[column]}
        )
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    roots = [str(source.parent.resolve())]
    return {"cohort.table": str(table), "cohort.roots": roots, "split.column": "split"}


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
