"""What each kind of sharing and of weighting costs: time of a step and peak memory, beside ``hard`` with ``equal``.

    python benchmarks/methods.py CONFIG --table cohort.csv --out FOLDER [--steps 30] [--kinds soft pcgrad ...]

Each arm is a process of its own, so that its peak memory is its own: it makes a run, takes some steps that are not
timed, and times the others, loader included. ``hard`` with ``equal`` is run anew before every fourth arm, and an arm is
compared with the one before it. ``telemetry`` is the same two with the gradients measured every 50th step, its mean
over 50 steps. Rows are written as they come, and a call that is repeated goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from medmtl import config, sharing, weighting
from medmtl.data.workers import make_loader
from medmtl.device import describe_hardware, peak_bytes
from medmtl.run_folder import RunFolder
from medmtl.training.session import open_session
from medmtl.training.start import make_ready, start_run
from medmtl.training.step import train_step

WARM = 5
EVERY = 50  # steps between two measurements of gradients
BASE = "hard and equal"
AGAIN = 4  # arms for which one measurement of the base stands


def main() -> None:
    """Time what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--kinds", nargs="+", help="by default all, and telemetry")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    overrides = {"cohort.table": str(given.table.resolve()), "cache.folder": str((given.out / "cache").resolve())}
    if given.arm is not None:
        print(json.dumps(timed(given.config, given.out, overrides, given.arm, given.steps, given.device)))
        return
    done_file = given.out / "methods.jsonl"
    done = [json.loads(line) for line in done_file.read_text().splitlines()] if done_file.exists() else []
    known = list(arms(config.load(given.config, overrides)))
    chosen = [name for name in given.kinds or known if name not in {row["arm"] for row in done}]
    for number, name in enumerate(chosen):
        for arm in (BASE, name) if number % AGAIN == 0 else (name,):
            row = {"arm": arm, **measured(arm)}
            done.append(row)
            with done_file.open("a") as file:
                file.write(json.dumps(row) + "\n")
    text = table(done, given.device)
    (given.out / "methods.md").write_text(text)
    print(text)


def arms(resolved: config.Config) -> dict[str, dict[str, Any]]:
    """Name -> overrides."""
    found: dict[str, dict[str, Any]] = {
        name: {"sharing.kind": name} for name in sharing.kinds.names() if name != "hard"
    }
    found |= {name: {"weighting.kind": name} for name in weighting.kinds.names() if name != "equal"}
    found["fixed"]["weighting.weights"] = dict.fromkeys(resolved.tasks, 1.0)
    found["telemetry"] = {"training.telemetry": EVERY}
    return found


def measured(arm: str) -> dict[str, float]:
    """What a process of its own finds."""
    words = [sys.executable, *sys.argv, "--arm", arm]
    answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def timed(source: Path, out: Path, overrides: dict[str, Any], arm: str, steps: int, device: Any) -> dict[str, float]:
    """Seconds of a step, and peak bytes."""
    own = {} if arm == BASE else arms(config.load(source, overrides))[arm]
    resolved = config.load(source, {**overrides, "training.steps": 100_000, **own})
    place = out / f"run-{arm.replace(' ', '-')}"
    if not (place / "manifest.json").exists():
        start_run(make_ready(resolved), place, 0, device)
    session = open_session(RunFolder.open(place))
    learner, found = session.learner, []
    count = EVERY if arm == "telemetry" else steps
    with closing(make_loader(session.training, 0, WARM + count, session.plan.workers, learner.device)) as loader:
        for number in range(WARM + count):
            begin = time.perf_counter()
            train_step(learner, next(loader), 1.0)
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= WARM:
                found.append(time.perf_counter() - begin)
    seconds = mean(found) if arm == "telemetry" else median(found)
    return {"seconds": seconds, "mean": mean(found), "bytes": peak_bytes(learner.device)}


def table(rows: list[dict[str, Any]], device: str) -> str:
    """A Markdown table, each arm beside the base that was measured before it."""
    lines = [f"{describe_hardware(device)}, {torch.get_num_threads()} threads", ""]
    lines += ["| kind | s a step | to hard and equal | peak memory, GB | to hard and equal |", "|---|---|---|---|---|"]
    base: dict[str, Any] = {}
    for row in rows:
        if row["arm"] == BASE:
            base = row
        time_of = "mean" if row["arm"] == "telemetry" else "seconds"
        ratios = row[time_of] / base[time_of], row["bytes"] / base["bytes"]
        lines.append(
            f"| {row['arm']} | {row[time_of]:.3f} | {ratios[0]:.2f} | {row['bytes'] / 1e9:.2f} | {ratios[1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
