"""What a training step costs: beside the bare network, and joint beside apart.

    python benchmarks/step.py CONFIG --table cohort.csv --out FOLDER [--steps 40] [--rounds 3]

Arms, timed in turn, round by round, in one process, on the threads that the plan gives:

* ``bare``: the joint network's encoder, decoder and voxel heads on the same batches, which lie in memory, with the same
  loss on all of its outputs, backward, torch's AdamW; nothing else. The floor of training this network.
* ``joint``: medmtl's step with all tasks, loader included.
* ``joint, loaders: N``: the same with no loader process where the plan has some, and with one otherwise.
* one arm per task: medmtl's step with this task alone, in the same plan. Where some tasks have a view of their own,
  which is cut around the mask of another, only the voxel tasks can be alone.

A figure is the mean over the steps of a round, whose samples differ in size, and then the median over the rounds. The
table that is printed is also written to FOLDER/step.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from steps import STEPS_AHEAD, bare, stepping
from timed import alone

from medmtl import config
from medmtl.data.formats import strict_yaml
from medmtl.device import describe_hardware
from medmtl.freed_memory import freed_memory_kept
from medmtl.networks.cost import forward_operations
from medmtl.planning.network import plan_towers
from medmtl.run_folder import RunFolder
from medmtl.training.session import Session, open_session
from medmtl.training.start import make_ready, start_run

WARM = 5


def main() -> None:
    """Make the runs, time them in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    overrides = {
        "cohort.table": str(given.table.resolve()),
        "cache.folder": str((given.out / "cache").resolve()),
        "training.steps": STEPS_AHEAD,
    }
    document = strict_yaml.parse(given.config.read_text()).data
    joint = opened(document, list(document["tasks"]), given, overrides)
    plan = joint.plan
    overrides |= {"plan.batch": plan.batch, "plan.precision": plan.precision}
    overrides |= {"plan.shape": list(plan.shape)} if plan.view == "patch" else {}
    apart = [name for name, task in joint.learner.tasks.items() if task.voxel or plan.case_view is None]
    sessions = {"joint": joint} | {name: opened(document, [name], given, overrides) for name in apart}
    with freed_memory_kept(), ExitStack() as stack:  # the former as in a training
        arms: dict[str, Callable[[], object]] = {"bare": bare(joint, given.steps + WARM)}
        for name, session in sessions.items():
            arms[name] = stepping(session, session.plan.workers, stack)
        other = 0 if joint.plan.workers else 1
        arms[f"joint, loaders: {other}"] = stepping(joint, other, stack)
        seconds = {name: [] for name in arms}  # type: dict[str, list[float]]
        for _ in range(given.rounds):
            for name, step in arms.items():
                seconds[name].append(timed(step, given.steps, joint.learner.device))
    text = table({name: median(values) for name, values in seconds.items()}, joint)
    (given.out / "step.md").write_text(text)
    print(text)


def opened(document: dict[str, Any], names: list[str], given: argparse.Namespace, overrides: dict[str, Any]) -> Session:
    """A run of the named tasks, ready for its first step; a task alone has no mask to read, and is learned without."""
    label = "joint" if len(names) > 1 else names[0]
    source = given.out / f"{label}.yaml"
    if len(names) == 1:
        document = {key: value for key, value in alone(document, names[0]).items() if key != "views"}
    source.write_text(strict_yaml.dump(document))
    place = given.out / f"run-{label}"
    if not (place / "manifest.json").exists():
        start_run(make_ready(config.load(source, overrides)), place, 0, given.device)
    return open_session(RunFolder.open(place))


def timed(step: Callable[[], object], count: int, device: torch.device) -> float:
    """Mean seconds of a step, behind a few that are not counted."""
    found = []
    for number in range(WARM + count):
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARM:
            found.append(time.perf_counter() - begin)
    return fmean(found)


def table(seconds: dict[str, float], joint: Session) -> str:
    """A Markdown table of the arms, and the ratios that are asked about."""
    plan = joint.plan
    tasks = [name for name in joint.learner.tasks if name in seconds]
    voxel = [name for name in tasks if joint.learner.tasks[name].voxel]
    lines = [
        f"{describe_hardware(plan.device)}; {plan.batch} samples a step, {plan.precision}, {plan.threads} threads",
        "",
        "| arm | s a step | to the joint step |",
        "|---|---|---|",
        *(f"| {name} | {value:.4f} | {value / seconds['joint']:.3f} |" for name, value in seconds.items()),
        "",
        f"Rate of the joint step to the bare network's: {seconds['bare'] / seconds['joint']:.3f}.",
    ]
    if len(voxel) == 1:
        lines.append(f"Joint step to the segmentation's alone: {seconds['joint'] / seconds[voxel[0]]:.3f}.")
    if len(tasks) == len(joint.learner.tasks):
        apart = sum(seconds[name] for name in tasks)
        bound = operations(joint, tasks) / sum(operations(joint, [name]) for name in tasks)
        lines.append(
            f"Joint step to the sum of the steps apart: {seconds['joint'] / apart:.3f}; by arithmetic, {bound:.3f}."
        )
    return "\n".join(lines) + "\n"


def operations(session: Session, names: list[str]) -> int:
    """Of the convolutions that a network of the named tasks has, for one sample."""
    tasks = {name: session.learner.tasks[name] for name in names}
    network = session.plan.network
    return forward_operations(network, plan_towers(session.config, tasks, network), session.plan.shape)


if __name__ == "__main__":
    main()
