"""What medmtl does in a process of its own; called by the benchmarks beside it, never by hand.

    python ours.py REQUEST ANSWER

As driver.py, which does the same for nnU-Net. The plan is nnU-Net's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from calls import group_seconds, peak_bytes, settle
from steps import STEPS_AHEAD, bare, stepping

import medmtl
from medmtl import config
from medmtl.device import describe_device
from medmtl.freed_memory import freed_memory_kept
from medmtl.run_folder import RunFolder
from medmtl.training.commit import save
from medmtl.training.session import Session, open_session
from medmtl.training.start import make_ready, open_cache, plan_fold, start_run

Answer = dict[str, Any]


def start(given: Answer, precision: str, fold: int, threads: int) -> Answer:
    """Make the run, its cases prepared."""
    return {"folder": str(opened(given, precision, fold, threads).run.path)}


@freed_memory_kept()  # as in a training
def step(given: Answer, alone: bool, precision: str, fold: int, warm: int, steps: int, threads: int) -> Answer:
    """Seconds of a training step, loader included, or with ``alone`` of its network on batches from memory."""
    session = opened(given, precision, fold, threads)
    found, before = [], 0.0
    with ExitStack() as stack:
        step_once = bare(session, steps) if alone else stepping(session, session.plan.workers, stack)
        for number in range(warm + steps):
            if number == warm:
                settle()  # what is made ahead is as much before the steps that count as behind them
                before = group_seconds(os.getpgrp())
            begin = time.perf_counter()
            step_once()
            if number >= warm:
                found.append(time.perf_counter() - begin)
        settle()
        processor = (group_seconds(os.getpgrp()) - before) / steps
    return {
        "seconds": median(found),
        "processor": processor,
        "all": found,
        "parameters": sum(p.numel() for p in session.learner.model.parameters()),
        "batch": session.plan.batch,
        "threads": torch.get_num_threads(),
    }


def prepare(given: Answer, fold: int, workers: int) -> Answer:
    """Seconds of checking and planning, and of preparing all cases of a fold anew."""
    begin, before = time.perf_counter(), group_seconds(os.getpgrp())
    ready = make_ready(loaded(given, "fp32", workers))
    plan = plan_fold(ready, fold, describe_device("cpu"))
    planned = {"plan": time.perf_counter() - begin, "plan_processor": group_seconds(os.getpgrp()) - before}
    shutil.rmtree(Path(given["out"]) / "cache-timed", ignore_errors=True)
    cache = open_cache(
        loaded(given, "fp32", workers, **{"cache.folder": str(Path(given["out"]) / "cache-timed")}),
        Path(given["out"]) / "none",
        plan.preparation,
    )
    train, val = ready.members(fold)
    begin, before = time.perf_counter(), group_seconds(os.getpgrp())
    cache.ensure([*train, *val], workers)
    seconds, processor = time.perf_counter() - begin, group_seconds(os.getpgrp()) - before
    size = sum(file.stat().st_size for file in cache.folder.rglob("*") if file.is_file())
    return {**planned, "seconds": seconds, "processor": processor, "bytes": size}


def checkpoint(given: Answer, precision: str, fold: int, threads: int) -> Answer:
    """A model that was not trained, in the form of one that was."""
    session = opened(given, precision, fold, threads)
    if session.run.newest() is None:
        save(session, 1)
    return {"folder": str(session.run.path)}


def predict(given: Answer, folder: str, cases: str, masks: str, threads: int) -> Answer:
    """Seconds from files to masks."""
    torch.set_num_threads(threads)
    begin, before = time.perf_counter(), group_seconds(os.getpgrp())
    medmtl.predict(folder, [cases], masks, device="cpu")
    return {
        "seconds": time.perf_counter() - begin,
        "processor": group_seconds(os.getpgrp()) - before,
        "threads": torch.get_num_threads(),
    }


def loaded(given: Answer, precision: str, threads: int, **more: Any) -> config.Config:
    """The experiment on nnU-Net's plan."""
    out, table = Path(given["out"]), Path(given["table"])
    overrides = {
        "cohort.table": str(table),
        "cohort.roots": [str(table.parent)],  # a table of some of its cases lies elsewhere
        "cache.folder": str(out / "cache"),
        "training.steps": STEPS_AHEAD,
        "plan.nnunet": given["plans"],
        "plan.precision": precision,
        "plan.threads": threads,
    }
    return config.load(Path(given["config"]), overrides | more)


def opened(given: Answer, precision: str, fold: int, threads: int) -> Session:
    """A run that is ready for its first step."""
    place = Path(given["out"]) / f"run-{precision}-fold{fold}-threads{threads}"
    if not (place / "manifest.json").exists():
        start_run(make_ready(loaded(given, precision, threads)), place, fold, "cpu")
    return open_session(RunFolder.open(place))


def main() -> None:
    """Do what is asked for."""
    request = json.loads(sys.argv[1])
    given = {name: request.pop(name) for name in ("config", "table", "out", "plans")}
    do = {function.__name__: function for function in (start, prepare, step, checkpoint, predict)}
    answer = do[request.pop("do")](given, **request)
    Path(sys.argv[2]).write_text(json.dumps({**answer, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
