"""What nnU-Net does in its own environment; called by the benchmarks beside it, never by hand.

    python driver.py REQUEST ANSWER

REQUEST is JSON: ``do`` names a function of this file, the rest are its arguments. ANSWER is a file that gets what it
returns and the peak memory of this process. This file imports nothing of medmtl, and medmtl nothing of it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from calls import group_seconds, peak_bytes, settle
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

DATASET = "Dataset001_Cohort"
CONFIGURATION = "3d_fullres"
CPU = torch.device("cpu")
Answer = dict[str, Any]


def plan(processes: int) -> Answer:
    """Look at the cases and plan; its seconds, and what the plan says."""
    begin, before = time.perf_counter(), group_seconds(os.getpgrp())
    extract_fingerprint_dataset(1, num_processes=processes, show_progress_bar=False)
    plan_experiment_dataset(1)
    seconds, processor = time.perf_counter() - begin, group_seconds(os.getpgrp()) - before
    held = load_json(str(prepared() / "nnUNetPlans.json"))["configurations"][CONFIGURATION]
    return {
        "seconds": seconds,
        "processor": processor,
        **{name: held[name] for name in ("patch_size", "batch_size", "spacing")},
    }


def prepare(processes: int) -> Answer:
    """Preprocess all cases as its command does, or in this process alone (0); its seconds."""
    begin, before = time.perf_counter(), group_seconds(os.getpgrp())
    if processes:
        preprocess_dataset(1, configurations=[CONFIGURATION], num_processes=[processes], show_progress_bar=False)
    else:
        one_by_one()
    seconds, processor = time.perf_counter() - begin, group_seconds(os.getpgrp()) - before
    kept = prepared() / f"nnUNetPlans_{CONFIGURATION}"
    return {"seconds": seconds, "processor": processor, "bytes": sum(file.stat().st_size for file in kept.iterdir())}


def one_by_one() -> None:
    """Its work on every case, without its pool of processes."""
    plans = PlansManager(str(prepared() / "nnUNetPlans.json"))
    chosen = plans.get_configuration(CONFIGURATION)
    kept = prepared() / chosen.data_identifier
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    description = load_json(str(prepared() / "dataset.json"))
    preprocessor = chosen.preprocessor_class(verbose=False)
    raw = Path(os.environ["nnUNet_raw"]) / DATASET  # noqa: SIM112 (its own spelling)
    for name, files in get_filenames_of_train_images_and_targets(str(raw), description).items():
        preprocessor.run_case_save(str(kept / name), files["images"], files["label"], plans, chosen, description)


def step(arm: str, fold: int, warm: int, steps: int, threads: int) -> Answer:
    """Seconds of a training step: ``shipped`` is its own with its own loader, ``fp32`` and ``bf16`` the bare network's.

    The bare network's step is forward, its loss, backward and SGD, on batches of its loader that lie in memory.
    """
    torch.set_num_threads(threads)
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, fold, device=CPU)
    trainer.on_train_start()
    batches: Iterator[Any] = trainer.dataloader_train
    if arm != "shipped":
        kept = list(islice(batches, steps))
        finish(trainer)
        batches = cycle(kept)
    found, before = [], 0.0
    for number in range(warm + steps):
        if number == warm:
            settle()  # what is made ahead is as much before the steps that count as behind them
            before = group_seconds(os.getpgrp())
        begin = time.perf_counter()
        if arm == "shipped":
            trainer.train_step(next(batches))
        else:
            bare_step(trainer, next(batches), arm)
        if number >= warm:
            found.append(time.perf_counter() - begin)
    settle()
    processor = (group_seconds(os.getpgrp()) - before) / steps
    if arm == "shipped":
        finish(trainer)
    return {
        "seconds": median(found),
        "processor": processor,
        "all": found,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "batch": trainer.batch_size,
        "threads": torch.get_num_threads(),
    }


def bare_step(trainer: Any, batch: Any, precision: str, clip: float | None = None) -> None:
    """Forward, its loss in fp32, backward and SGD."""
    trainer.optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        outputs = trainer.network(batch["data"])
    trainer.loss([output.float() for output in outputs], batch["target"]).backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), clip)
    trainer.optimizer.step()


def finish(trainer: Any) -> None:
    """End the loaders' processes."""
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()


def checkpoint(fold: int) -> Answer:
    """A model that was not trained, in the form of one that was."""
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, fold, device=CPU)
    trainer.initialize()
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    save_json(trainer.plans_manager.plans, f"{trainer.output_folder_base}/plans.json", sort_keys=False)
    save_json(trainer.dataset_json, f"{trainer.output_folder_base}/dataset.json", sort_keys=False)
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    return {"folder": trainer.output_folder_base}


def predict(folder: str, fold: int, cases: dict[str, list[str]], masks: str, processes: int, threads: int) -> Answer:
    """Seconds from files to masks: with ``processes`` that prepare and as many that write, or in this one alone (0)."""
    torch.set_num_threads(threads)
    begin, before = time.perf_counter(), group_seconds(os.getpgrp())
    predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(folder, (fold,), "checkpoint_final.pth")
    forwards = [0]
    predictor.network.register_forward_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))
    Path(masks).mkdir(parents=True)
    files, names = list(cases.values()), [f"{masks}/{name}" for name in cases]
    if processes:
        predictor.predict_from_files(
            files, names, num_processes_preprocessing=processes, num_processes_segmentation_export=processes
        )
    else:
        predictor.predict_from_files_sequential(files, names)
    return {
        "seconds": time.perf_counter() - begin,
        "processor": group_seconds(os.getpgrp()) - before,
        "forwards": forwards[0],
        "threads": torch.get_num_threads(),
    }


def train(fold: int, minutes: float, precision: str, batch: int | None, threads: int, seed: int) -> Answer:
    """Train for some minutes, the rate falling to 0 at their end, and validate as it does after a training.

    Left away is what it does between its epochs: scoring patches of the validation cases, drawing curves, keeping the
    best weights. ``shipped`` is its own step; ``bf16`` the same under autocast. The rate follows its schedule step by
    step instead of epoch by epoch.
    """
    torch.set_num_threads(threads)
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):
        set_seed(seed)
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, fold, device=CPU)
    if batch is not None:
        trainer.configuration_manager.configuration["batch_size"] = batch
    trainer.on_train_start()
    limit, begin, count = 60 * minutes, time.perf_counter(), 0
    schedule = PolyLRScheduler(trainer.optimizer, trainer.initial_lr, limit)
    while (passed := time.perf_counter() - begin) < limit:
        schedule.step(passed)
        if precision == "bf16":
            bare_step(trainer, next(trainer.dataloader_train), "bf16", clip=12)
        else:
            trainer.train_step(next(trainer.dataloader_train))
        count += 1
    passed = time.perf_counter() - begin
    finish(trainer)
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    begin = time.perf_counter()
    trainer.perform_actual_validation()
    summary = load_json(f"{trainer.output_folder}/validation/summary.json")
    return {
        "steps": count,
        "seconds": passed,
        "batch": trainer.batch_size,
        "validation": time.perf_counter() - begin,
        "dice": {label: held["Dice"] for label, held in summary["mean"].items()},
        "mean": summary["foreground_mean"]["Dice"],
    }


def prepared() -> Path:
    """Its folder of plan and prepared cases."""
    return Path(os.environ["nnUNet_preprocessed"]) / DATASET  # noqa: SIM112 (its own spelling)


def main() -> None:
    """Do what is asked for."""
    request = json.loads(sys.argv[1])
    do = {function.__name__: function for function in (plan, prepare, step, checkpoint, predict, train)}
    answer = do[request.pop("do")](**request)
    Path(sys.argv[2]).write_text(json.dumps({**answer, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
