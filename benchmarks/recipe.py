"""What each setting of the training does to every task: one factor at a time around the default, at equal minutes.

    python benchmarks/recipe.py CONFIG --table cohort.csv --out FOLDER [--minutes 3] [--folds 1 2 3 4] [--only NAME ...]
    python benchmarks/recipe.py CONFIG --table cohort.csv --out FOLDER --confirm NAME ... [--seeds 3]

Screening trains every factor once, on one fold, with one seed and one thread, and the default on each of these folds;
the folds take turns, so that no choice is made on one of them alone. Fold 0 is left for the result. ``--confirm``
trains the named factors and the default on every one of the folds with several seeds; ``A+B`` is both at once.

Minutes are processor time, loader included. A short run tells what a step costs, once for the default and once for
each factor that changes the cost. The first factor is the default with another seed: what differs by less is noise.
Rows are written as they come, and a call that is repeated goes on where it stopped; the table is printed and written
to FOLDER after every run. Calls with other ``--folds`` may share FOLDER.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timed import (
    Row,
    Training,
    add_row,
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
from medmtl.device import describe_hardware
from medmtl.errors import InterruptedRun, MedmtlError

DEFAULT = "default"
Overrides = dict[str, Any]

# in a key, MASK, CLASS and CASE stand for every segmentation, every classification and every case task
FACTORS: dict[str, Overrides] = {
    "default, seed 1": {"training.seed": 1},
    "lr 2e-3": {"training.lr": 2e-3},
    "lr 8e-3": {"training.lr": 8e-3},
    "lr 1e-3": {"training.lr": 1e-3},
    "head_lr 3e-4": {"training.head_lr": 3e-4},
    "head_lr 3e-3": {"training.head_lr": 3e-3},
    "batch 2": {"plan.batch": 2},
    "batch 6": {"plan.batch": 6},
    "width 24": {"plan.width": 24},
    "width 32": {"plan.width": 32},
    "width 12": {"plan.width": 12},
    "head_gradient 0": {"training.head_gradient": 0},
    "head_gradient 0.005": {"training.head_gradient": 0.005},
    "head_gradient 0.02": {"training.head_gradient": 0.02},
    "head_gradient 0.1": {"training.head_gradient": 0.1},
    "head_gradient 1": {"training.head_gradient": 1},
    "no average": {"training.average": False},
    "average 0.95": {"training.average_decay": 0.95},
    "average 0.999": {"training.average_decay": 0.999},
    "no augmentation": {"augmentation.kind": "none"},
    "no deep supervision": {"network.deep_supervision": False},
    "weight_decay 0": {"training.weight_decay": 0},
    "weight_decay 1e-2": {"training.weight_decay": 1e-2},
    "weight_decay 1e-1": {"training.weight_decay": 1e-1},
    "clip 1": {"training.clip": 1},
    "clip 1000": {"training.clip": 1000},
    "sgd 1e-2": {"training.optimiser": "sgd", "training.lr": 1e-2},
    "sgd 3e-2": {"training.optimiser": "sgd", "training.lr": 3e-2},
    "dice_focal": {"tasks.MASK.loss": "dice_focal"},
    "tversky 0.5": {"tasks.MASK.loss": "tversky", "tasks.MASK.beta": 0.5},
    "residual blocks": {"network.blocks": "residual"},
    "resenc": {"network.kind": "resenc"},
    "segresnet": {"network.kind": "segresnet"},
    "max_width 64": {"plan.max_width": 64},
    "max_width 256": {"plan.max_width": 256},
    "decoder per task": {"network.decoder": "per_task"},
    "fp32": {"plan.precision": "fp32"},
    "sampling labelled": {"training.sampling": "labelled"},
    "classes balanced": {"training.sampling": "labelled", "tasks.CLASS.class_sampling": "balanced"},
    "class weights": {"tasks.CLASS.class_weights": "balanced"},
    "label smoothing 0.1": {"tasks.CLASS.label_smoothing": 0.1},
    "pooling mean": {"tasks.CASE.pooling": "mean"},
    "pooling attention": {"tasks.CASE.pooling": "attention"},
    "case tasks from 0.3 on": {"training.tasks.CASE.start": 0.3},
    "case tasks warm 200": {"training.heads.CASE.warm_up": 200},
    "one task a step": {"training.alternate": "cycle"},
    "no loss scale": {"weighting.loss_scale": "none"},
}
WHOLE = {"views.kind": "one"}  # cut at the shape, and not seen in patches
# by the configuration's stem; the default is one sample for the whole of the largest case
OF_COHORT: dict[str, dict[str, Overrides]] = {
    "hippocampus": {
        "shape 40x56x40": {"plan.shape": [40, 56, 40], "plan.batch": 4, **WHOLE},
        "shape 40x56x40, batch 6": {"plan.shape": [40, 56, 40], **WHOLE},
        "shape 32x48x32": {"plan.shape": [32, 48, 32], "plan.batch": 4, **WHOLE},
        "flips x": {"augmentation.flips": ["x"]},  # there are crops of either side
        "flips x, also predicted": {"augmentation.flips": ["x"], "inference.tta": "flips"},
    },
    "cine": {
        "spacing 1.3": {"plan.spacing": [1.3, 1.3, 9.6]},
        "spacing 2.6": {"plan.spacing": [2.6, 2.6, 9.6]},
        "batch 1": {"plan.batch": 1},
    },
}
# keys that leave the cost of a step alone; the others are timed on their own
SAME_COST = ("training.lr", "training.head", "training.seed", "training.weight_decay", "training.clip")


def main() -> None:
    """Run what is not in the file yet, and print the table after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="factors to screen instead of all")
    parser.add_argument("--confirm", nargs="+", metavar="NAME", help="factors to train with several seeds")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    default = resolved(given, {})
    factors = {DEFAULT: {}, **FACTORS, **OF_COHORT.get(given.config.stem, {})}
    stem = f"{'confirm' if given.confirm else 'screen'}-{given.config.stem}-{given.minutes:g}"
    done_file = given.out / f"{stem}.jsonl"
    for name, fold, seed in wanted(given, list(factors)):
        key, rows = {"factor": name, "fold": fold, "seed": seed}, read_rows(done_file)
        if any(key.items() <= row.items() for row in rows):
            continue
        overrides = expanded(default, {k: v for part in name.split("+") for k, v in factors[part].items()})
        if overrides and resolved(given, overrides) == default:
            continue
        add_row(done_file, {**key, "overrides": overrides, **run(given, overrides, fold, seed, rows)})
        text = (confirmed if given.confirm else screened)(read_rows(done_file), given)
        (given.out / f"{stem}.md").write_text(text)
        print(text, flush=True)


def wanted(given: argparse.Namespace, names: list[str]) -> Iterator[tuple[str, int, int]]:
    """Factor, fold and seed of every run, in order; a default comes before what is compared with it."""
    chosen = given.confirm or given.only or names[1:]
    parts = [part for name in chosen for part in name.split("+")]
    if unknown := [part for part in parts if part not in names]:
        raise SystemExit(f"no factor {unknown[0]!r}; there are: {', '.join(names)}")
    if given.confirm:
        for seed in range(given.seeds):
            for fold in given.folds:
                yield from ((name, fold, seed) for name in (DEFAULT, *chosen))
        return
    for name in chosen:
        # by its place in the whole list, so that --only does not move a factor to another fold
        fold = given.folds[(names.index(name) - 1) % len(given.folds)] if name in names else given.folds[0]
        yield DEFAULT, fold, 0
        yield name, fold, 0


def expanded(default: config.Config, overrides: Overrides) -> Overrides:
    """With the names of tasks in the place of their kinds."""
    kinds = {name: task.kind for name, task in default.tasks.items()}
    members = {
        "MASK": [name for name, kind in kinds.items() if kind == "segmentation"],
        "CLASS": [name for name, kind in kinds.items() if kind == "classification"],
        "CASE": [name for name, kind in kinds.items() if kind != "segmentation"],
    }
    found: Overrides = {}
    for key, value in overrides.items():
        group = next((group for group in members if group in key.split(".")), None)
        keys = [key] if group is None else [key.replace(group, name) for name in members[group]]
        found |= dict.fromkeys(keys, value)
    return found


def resolved(given: argparse.Namespace, overrides: Overrides) -> config.Config:
    """The configuration with a factor."""
    return config.load(given.config, {"cohort.table": str(given.table.resolve()), **overrides})


def run(given: argparse.Namespace, overrides: Overrides, fold: int, seed: int, rows: list[Row]) -> Row:
    """Train and score once; a training that fails, as one whose loss is not finite, is a row as well."""
    place = given.out / f"run-{given.config.stem}-{'-'.join(map(str, given.folds))}"
    whole = {
        "cohort.table": str(given.table.resolve()),
        "cache.folder": str((given.out / "cache").resolve()),
        "training.seed": seed,
        "training.checkpoint_every": 100_000,
        "plan.threads": 1,
        **overrides,
    }
    cost = {key: value for key, value in overrides.items() if not key.startswith(SAME_COST)}
    training = Training(given.config, place, whole, fold)
    try:
        steps = next((row["steps"] for row in rows if row["cost"] == cost and row["steps"]), None)
        steps = training.steps_in(given.minutes * 60) if steps is None else steps
        took = training.fit(steps=steps)
        tasks = evaluated(place)
    except InterruptedRun:
        raise
    except MedmtlError as error:
        return {"cost": cost, "steps": 0, "seconds": 0.0, "failed": str(error)}
    masks = [name for name, task in tasks.items() if task["kind"] == "segmentation"]
    scores = {name: estimate["value"] for name, estimate in headlines(tasks).items()}
    found = {"cost": cost, "steps": steps, "seconds": took.whole, "scores": scores, "dice": case_dice(place, masks)}
    shutil.rmtree(place)
    return found


def screened(rows: list[Row], given: argparse.Namespace) -> str:
    """A line per factor, beside the default of its fold."""
    names = task_names(rows)
    columns = ["factor", "fold", "steps", *names, *(f"{name} to default" for name in names)]
    lines = [title(given, "one seed"), "", *head_of([*columns, "Dice to default, paired"])]
    defaults = {row["fold"]: row for row in rows if row["factor"] == DEFAULT}
    for row in rows:
        cells = [row["factor"], row["fold"], row["steps"] or "failed"]
        base = defaults.get(row["fold"])
        if "scores" in row:
            cells += [spread([row["scores"][name]]) for name in names]
        if "scores" in row and base is not None and base is not row and "scores" in base:
            cells += [change(base["scores"][name], row["scores"][name]) for name in names]
            cells += [with_ends(paired([(base, row)])[""])]
        lines.append(line_of([*cells, *[""] * (len(columns) + 1 - len(cells))]))
    return "\n".join([*lines, *failures(rows)]) + "\n"


def confirmed(rows: list[Row], given: argparse.Namespace) -> str:
    """A line per factor: medians over folds and seeds, and the difference in Dice, paired by fold and seed."""
    names = task_names(rows)
    lines = [title(given, "medians over folds and seeds (least to most)"), ""]
    lines += head_of(["factor", "runs", "steps", *names, "Dice to default, paired (mean of the seeds per case)"])
    defaults = {(row["fold"], row["seed"]): row for row in rows if row["factor"] == DEFAULT and "scores" in row}
    for factor in dict.fromkeys(row["factor"] for row in rows):
        own = [row for row in rows if row["factor"] == factor and "scores" in row]
        pairs = [(defaults[row["fold"], row["seed"]], row) for row in own if (row["fold"], row["seed"]) in defaults]
        held = [spread([row["scores"][name] for row in own]) for name in names]
        steps = own[0]["steps"] if own else "failed"
        ends = with_ends(paired(pairs)[""]) if pairs and factor != DEFAULT else ""
        lines.append(line_of([factor, len(own), steps, *held, ends]))
    return "\n".join([*lines, *failures(rows)]) + "\n"


def title(given: argparse.Namespace, what: str) -> str:
    """What was run."""
    hardware = describe_hardware("cpu")
    return f"{given.config.stem}, {hardware}, 1 thread, {given.minutes:g} minutes of processor time, {what}"


def task_names(rows: list[Row]) -> list[str]:
    """Tasks, as scored."""
    return next((list(row["scores"]) for row in rows if "scores" in row), [])


def change(before: float | None, after: float | None) -> str:
    """A difference, where there is one."""
    return "none" if before is None or after is None else f"{after - before:+.3f}"


def failures(rows: list[Row]) -> list[str]:
    """Why a training failed."""
    return ["", *(f"- {row['factor']}: {row['failed']}" for row in rows if "failed" in row)]


if __name__ == "__main__":
    main()
