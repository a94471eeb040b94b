"""The package beside a plain MONAI script, all tasks at once, at the same minutes.

    python benchmarks/equal_minutes.py CONFIG --table cohort.csv --out FOLDER [--minutes 10] [--script-minutes 1]
                                       [--folds 0] [--seeds 0 1 2]
                                       [--arms script medmtl] [--threads 1] [--clock processor]

CONFIG is hippocampus.yaml or cine.yaml; the script is ``benchmarks/script.py``. Both train on the same cases of a fold
and are scored on the same held-out ones, mean Dice per case on the scan's own grid. By processor time, a short run of
the package tells how many steps it takes in the minutes, and the script counts its own time as it goes; that does not
depend on what else the machine does, as far as processor time does not, so that two calls may share FOLDER, each with
one of the ``--arms``, or with other ``--folds`` or ``--seeds``. Later runs of the package take as many steps as the
earlier ones would have in the minutes. By the wall clock the package has ``training.minutes``; the machine must then be
idle. The two take turns, and which begins changes with the seed. Rows are written as they come, and a call that is
repeated goes on where it stopped. The tables that are printed are also written to FOLDER.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from statistics import median

import script
from timed import (
    CLOCKS,
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

from medmtl.device import describe_hardware

ARMS = ("script", "medmtl")


def main() -> None:
    """Run what is not in the file yet, and print the tables after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--script-minutes", type=float, default=1.0, help="of the script, as a multiple of --minutes")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2))
    parser.add_argument("--clock", default="processor", choices=tuple(CLOCKS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    times = f"{given.minutes:g}x{given.script_minutes:g}"
    name = f"{given.config.stem}-{times}-{given.clock}-{given.threads}"
    done_file = given.out / f"{name}.jsonl"
    for fold in given.folds:
        for seed in given.seeds:
            for arm in given.arms if seed % 2 == 0 else reversed(given.arms):
                wanted = {"arm": arm, "fold": fold, "seed": seed}
                rows = read_rows(done_file)
                if any(wanted.items() <= row.items() for row in rows):
                    continue
                steps = steps_by(rows, given.minutes * 60)
                found = run_script(given, fold, seed) if arm == "script" else run_medmtl(given, fold, seed, steps)
                add_row(done_file, {**wanted, **found})
                text = tables(read_rows(done_file), given)
                (given.out / f"{name}.md").write_text(text)
                print(text, flush=True)
    print(tables(read_rows(done_file), given))


def run_script(given: argparse.Namespace, fold: int, seed: int) -> Row:
    """Train and score the script."""
    study = script.STUDIES[given.config.stem]
    answer = script.run(
        study,
        study.recipe,
        given.table.parent,
        *script.divided(given.config, given.table, fold),
        seconds=given.minutes * given.script_minutes * 60,
        seed=seed,
        threads=given.threads,
        clock=given.clock,
    )
    return {"steps": answer.steps, "seconds": answer.seconds, "scores": answer.scores, "dice": answer.dice}


def steps_by(rows: list[Row], seconds: float) -> int | None:
    """Steps that the package takes in so many seconds, by the runs so far; None before the first."""
    rates = [row["steps"] / row["seconds"] for row in rows if row["arm"] == "medmtl"]
    return round(seconds * median(rates)) if rates else None


def run_medmtl(given: argparse.Namespace, fold: int, seed: int, steps: int | None) -> Row:
    """Train and score the package; ``steps`` as its earlier runs tell, or None before the first."""
    place = given.out / f"run-{given.config.stem}-{fold}-{seed}"
    overrides = {
        "cohort.table": str(given.table.resolve()),
        "cache.folder": str((given.out / "cache").resolve()),
        "training.seed": seed,
        "training.checkpoint_every": 100_000,
        "plan.threads": given.threads,
    }
    training = Training(given.config, place, overrides, fold, given.clock)
    if given.clock == "wall":
        took = training.fit(minutes=given.minutes)
    else:
        took = training.fit(steps=training.steps_in(given.minutes * 60) if steps is None else steps)
    steps = newest_step(place)
    scores = {name: estimate["value"] for name, estimate in headlines(evaluated(place)).items()}
    masks = list(script.STUDIES[given.config.stem].masks)
    found = {"steps": steps, "seconds": took.whole, "scores": scores, "dice": case_dice(place, masks)}
    shutil.rmtree(place)
    return found


def tables(rows: list[Row], given: argparse.Namespace) -> str:
    """Every run, the medians over seeds, and the paired differences, as Markdown."""
    names = list(rows[0]["scores"])
    lines = [
        f"{describe_hardware('cpu')}, threads: {given.threads}, {given.minutes:g} minutes by the {given.clock} clock, "
        f"the script {given.minutes * given.script_minutes:g}",
        "",
        "Every run (seconds: of the package with what a run costs after its last step):",
        "",
        *head_of(["fold", "seed", "arm", "steps", "seconds", *names]),
    ]
    for row in sorted(rows, key=lambda row: (row["fold"], row["seed"])):
        scores = [spread([row["scores"][name]]) for name in names]
        lines.append(line_of([row["fold"], row["seed"], row["arm"], row["steps"], f"{row['seconds']:.0f}", *scores]))
    lines += ["", "Median over the runs (least to most):", "", *head_of(["arm", "runs", *names])]
    for arm in ARMS:
        own = [row for row in rows if row["arm"] == arm]
        lines.append(line_of([arm, len(own), *(spread([row["scores"][name] for row in own]) for name in names)]))
    return "\n".join([*lines, *differences(rows)]) + "\n"


def differences(rows: list[Row]) -> list[str]:
    """Of Dice, medmtl minus the script over pairs of one fold and seed."""
    held = {(row["arm"], row["fold"], row["seed"]): row for row in rows}
    pairs = [
        (row, held["medmtl", fold, seed])
        for (arm, fold, seed), row in held.items()
        if arm == "script" and ("medmtl", fold, seed) in held
    ]
    if not pairs:
        return []
    lines = ["", f"Dice, medmtl minus script, {len(pairs)} pairs of runs: mean over seeds per case, then over cases"]
    lines += ["(95 % bootstrap interval over cases, given the trained models):", ""]
    lines += head_of(["Dice of", "difference", "cases"])
    found = paired(pairs)
    lines += [line_of([name or "mean of the masks", with_ends(value), value[3]]) for name, value in found.items()]
    return lines


def newest_step(place: Path) -> int:
    """Steps that a finished run took."""
    return max(int(entry["step"]) for entry in read_rows(place / "log.jsonl") if "step" in entry)


if __name__ == "__main__":
    main()
