"""nnU-Net in an environment of its own, and the same cases as it and as medmtl want them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from calls import call

from medmtl import config
from medmtl.data.formats import strict_yaml
from medmtl.device import describe_hardware
from medmtl.training.start import Ready, make_ready

NNUNET = "nnunetv2==2.8.1"
DATASET = "Dataset001_Cohort"
ENDING = ".nii.gz"
DRIVER = Path(__file__).with_name("driver.py")
OURS = Path(__file__).with_name("ours.py")


def parsed(description: str | None, **more: Any) -> argparse.Namespace:
    """The words that all of these benchmarks take; ``more`` are numbers with their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--env", type=Path, help="where nnU-Net is or will be installed; by default OUT/env")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    for name, value in more.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does, it also ends what was called
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


@dataclass(frozen=True)
class Peer:
    """nnU-Net on a cohort, and medmtl on the same cases.

    Attributes:
        python: of nnU-Net's environment.
        out: the benchmark's folder.
        table: of the cohort.
        threads: that every process computes on.
        name: of the mask's task.
        ready: the checked cohort, with its splits; of it only the mask is a task.
    """

    python: Path
    out: Path
    table: Path
    threads: int
    name: str
    ready: Ready

    def ask(self, log: str, place: str = "prepared", /, **request: Any) -> dict[str, Any]:
        """What nnU-Net answers; see driver.py.

        Args:
            log: name of the file that gets what it prints.
            place: name of its folder of prepared cases.
            request: ``do`` and its arguments.
        """
        folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": place, "nnUNet_results": "results"}
        variables = {name: str(self.out / folder) for name, folder in folders.items()} | {"PYTHONPATH": ""}
        return call([self.python, DRIVER], request, self.out / "logs" / f"{log}.log", **variables, **self._threads())

    def ask_ours(self, log: str, /, **request: Any) -> dict[str, Any]:
        """What medmtl answers; see ours.py."""
        places = {"config": self.config, "table": self.table, "out": self.out, "plans": self.plans}
        given = {**{name: str(place) for name, place in places.items()}, **request}
        # what it shares with the benchmarks beside this folder, and what this process was told to import
        found = os.pathsep.join(filter(None, [str(OURS.parents[1]), os.environ.get("PYTHONPATH")]))
        log_file = self.out / "logs" / f"{log}.log"
        return call([sys.executable, OURS], given, log_file, PYTHONPATH=found, **self._threads())

    def _threads(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.threads), "nnUNet_def_n_proc": str(self.threads)}

    @property
    def config(self) -> Path:
        """The experiment with the mask's task alone."""
        return self.out / "mask.yaml"

    @property
    def plans(self) -> Path:
        """The plan that nnU-Net made."""
        return self.out / "prepared" / DATASET / "nnUNetPlans.json"

    def machine(self) -> str:
        """What the figures were taken on."""
        return f"{describe_hardware('cpu')}, {self.threads} threads, torch {torch.__version__}, {NNUNET}"


def ready_peer(given: argparse.Namespace) -> Peer:
    """Install nnU-Net, lay out the cases and let it plan and prepare them; what is done already stays."""
    python = installed(given.env or given.out / "env")
    name = write_mask_config(given.config, given.out)
    peer = Peer(
        python,
        given.out,
        given.table.resolve(),
        given.threads,
        name,
        make_ready(config.load(given.out / "mask.yaml", {"cohort.table": str(given.table.resolve())})),
    )
    lay_out(peer)
    done = peer.plans.with_name("done")
    if not done.exists():
        peer.ask("plan", do="plan", processes=2)
        write_splits(peer, peer.plans.parent)
        peer.ask("prepare", do="prepare", processes=2)
        done.touch()
    return peer


def installed(folder: Path) -> Path:
    """The interpreter of an environment with nnU-Net and the torch that runs here.

    Raises:
        SystemExit: if pip fails; its last lines are said.
    """
    # the CPU build, where this one is: the other brings gigabytes
    build = torch.__version__ if torch.version.cuda is None else torch.__version__.partition("+")[0]
    wanted = f"torch=={build} {NNUNET}"
    stamp, python = folder / "installed", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {wanted} into {folder}")
    for words in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--no-input", "--quiet", *wanted.split()],
        [str(python), "-c", "import nnunetv2.run.run_training"],
    ):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(
                f"nnU-Net could not be installed: {' '.join(words)} ended with {done.returncode}\n"
                f"{(done.stdout + done.stderr)[-2000:]}\nIs the package index reachable? One that has the builds for "
                "CPUs can be named by PIP_EXTRA_INDEX_URL; an environment that is there already by --env."
            )
    # last, so that an installation that was cut short is done again
    stamp.write_text(wanted)
    return python


def write_mask_config(source: Path, out: Path) -> str:
    """Write the experiment with its one mask alone as a task; its name."""
    document = strict_yaml.parse(source.read_text()).data
    masks = [name for name, task in document["tasks"].items() if task["kind"] == "segmentation"]
    if len(masks) != 1:
        raise SystemExit(f"{source}: one segmentation task is expected, found {masks or 'none'}")
    name = masks[0]
    (out / "mask.yaml").write_text(strict_yaml.dump({**document, "tasks": {name: document["tasks"][name]}}))
    return name


def lay_out(peer: Peer) -> None:
    """Links to the cases in nnU-Net's raw layout, with its description."""
    chosen: Any = peer.ready.config.tasks[peer.name]
    labels = dict(chosen.labels)
    if sorted(labels.values()) != list(range(1, len(labels) + 1)):
        raise SystemExit(f"nnU-Net wants the labels 1 to {len(labels)}; found {labels}")
    channels = list(peer.ready.config.cohort.channels)
    cases = peer.ready.checked.cohort.cases
    description = {
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": len(cases),
        "file_ending": ENDING,
    }
    place = peer.out / "raw" / DATASET
    wanted = json.dumps(description, indent=1)
    if (place / "dataset.json").exists() and (place / "dataset.json").read_text() == wanted:
        return
    for name in ("raw", "prepared", "results"):
        shutil.rmtree(peer.out / name, ignore_errors=True)
    for folder in ("imagesTr", "labelsTr"):
        (place / folder).mkdir(parents=True)
    for case in cases:
        files = {f"imagesTr/{case.case_id}_{i:04d}": case.images[channel] for i, channel in enumerate(channels)}
        files[f"labelsTr/{case.case_id}"] = case.files[chosen.column]
        for link, file in files.items():
            if not file.name.endswith(ENDING):
                raise SystemExit(f"{file}: this benchmark takes {ENDING} files only")
            (place / f"{link}{ENDING}").symlink_to(file)
    (place / "dataset.json").write_text(wanted)


def write_splits(peer: Peer, folder: Path) -> None:
    """The folds of medmtl as nnU-Net reads them."""
    folds = [{"train": list(fold.train), "val": list(fold.val)} for fold in peer.ready.splits.folds]
    (folder / "splits_final.json").write_text(json.dumps(folds))
