"""Five pairs of sharing and weighting at the same minutes: what each task reaches.

    python benchmarks/pairs.py CONFIG --table cohort.csv --out FOLDER [--minutes 3] [--seeds 3] [--fold 3]

Every pair trains all tasks of CONFIG on one thread for the same minutes of processor time, loader included: two short
runs of a pair tell what its step costs, and a pair that costs more takes fewer steps. Nothing but the two kinds, the
seed and the steps differs between the runs. Rows are written as they come, and a call that is repeated goes on where it
stopped. The tables that are printed are also written to FOLDER/pairs.md.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timed import Row, Training, add_row, evaluated, headlines, line_of, read_rows, spread

from medmtl.device import describe_hardware

PAIRS = (
    ("hard", "equal"),
    ("hard", "uncertainty"),
    ("hard", "upgrad"),
    ("cross_stitch", "equal"),
    ("mtan", "db_mtl"),
)


def main() -> None:
    """Run what is not in the file yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fold", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    done_file = given.out / f"pairs-{given.minutes:g}-fold{given.fold}.jsonl"
    rows = read_rows(done_file)
    for seed in range(given.seeds):
        for pair in PAIRS:
            if any((row["pair"], row["seed"]) == (list(pair), seed) for row in rows):
                continue
            known = next((row["steps"] for row in rows if row["pair"] == list(pair)), None)
            rows.append({"pair": list(pair), "seed": seed, **run(given, pair, seed, known)})
            add_row(done_file, rows[-1])
    text = tables(rows, given)
    (given.out / "pairs.md").write_text(text)
    print(text)


def run(given: argparse.Namespace, pair: tuple[str, str], seed: int, steps: int | None) -> Row:
    """Train and score one pair; ``steps`` are those of the pair's first seed, or None."""
    place = given.out / "run"
    overrides = {
        "cohort.table": str(given.table.resolve()),
        "cache.folder": str((given.out / "cache").resolve()),
        "sharing.kind": pair[0],
        "weighting.kind": pair[1],
        "training.seed": seed,
        "training.checkpoint_every": 100_000,
        "plan.threads": 1,
    }
    training = Training(given.config, place, overrides, given.fold)
    steps = training.steps_in(given.minutes * 60) if steps is None else steps
    took = training.fit(steps=steps)
    scores = headlines(evaluated(place))
    shutil.rmtree(place)
    return {"steps": steps, "seconds": took.whole, "scores": scores}


def tables(rows: list[Row], given: argparse.Namespace) -> str:
    """One table of the medians over seeds, one of every run with its intervals, as Markdown."""
    names = list(rows[0]["scores"])
    head = "| sharing | weighting | {} | " + " | ".join(names) + " |"
    rule = "|---" * (3 + len(names)) + "|"
    lines = [
        f"{describe_hardware('cpu')}, 1 thread, {given.minutes:g} minutes of processor time, fold {given.fold}",
        "",
    ]
    lines += ["Median over the seeds (least to most):", "", head.format("steps"), rule]
    lines += [*map(line_of, medians(rows, names)), "", "Every run (95 % interval over patients):", ""]
    lines += [head.format("seed"), rule]
    for pair in PAIRS:
        for row in (row for row in rows if row["pair"] == list(pair)):
            lines.append(line_of([*pair, row["seed"], *(with_interval(row["scores"][name]) for name in names)]))
    return "\n".join(lines) + "\n"


def medians(rows: list[Row], names: list[str]) -> Iterator[list[Any]]:
    """Cells of the first table."""
    for pair in PAIRS:
        own = [row for row in rows if row["pair"] == list(pair)]
        if own:
            yield [*pair, own[0]["steps"], *(spread([row["scores"][name]["value"] for row in own]) for name in names)]


def with_interval(score: Row) -> str:
    """A value with its interval, where there is one."""
    if score["value"] is None:
        return "none"
    interval = score["ci95"]
    return f"{score['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


if __name__ == "__main__":
    main()
