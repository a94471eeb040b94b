"""How memory and time grow with the number of cases: check, plan, a short training and an evaluation of tiny cases.

    python benchmarks/cohort_size.py --out FOLDER [--cases 100 1000 10000]

Every case is two files of its own (a scan of 16 x 16 x 16 voxels and its mask), because a scan that comes twice is
refused; so what grows is what the program keeps of each case. Each command is a process of its own: *peak* is that of
the main process, *all* the largest sum over it and its loader processes, where what these share with it counts once
(/proc/PID/smaps_rollup, looked at twenty times a second). Cohorts and runs are left in FOLDER, and a cohort that lies
there is taken as it is. The Markdown table that is printed is also written to FOLDER/cohort_size.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHAPE = (16, 16, 16)
HEADER_BYTES = 352
CONFIG = """\
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: patient_id, channels: {t1: t1}}
tasks:
  organ: {kind: segmentation, column: organ, labels: {organ: 1}}
  grade: {kind: classification, column: grade, classes: [low, high]}
  size:  {kind: regression, column: size}
network: {kind: unet}
plan: {batch: 4, workers: 2, threads: 1, width: 8, max_width: 32}
training: {steps: 40, checkpoint_every: 20}
"""
COMMANDS = {
    "check": ("check", "config.yaml"),
    "plan": ("plan", "config.yaml"),
    "train": ("train", "config.yaml", "--out", "run", "--device", "cpu"),
    "evaluate": ("evaluate", "run", "--device", "cpu"),
}
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Used:
    """What a command took: wall seconds, and megabytes of its main process and of all of its processes."""

    seconds: float
    peak: float
    together: float


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    given = parser.parse_args()
    lines = ["| command | cases | s | ms per case | peak, MB | all, MB | kB per further case |", "|---|" + "---|" * 6]
    print("\n".join(lines))
    for command in given.commands:
        before: tuple[int, float] | None = None
        for cases in sorted(given.cases):
            folder = given.out / f"cohort-{cases}"
            if not (folder / "config.yaml").is_file():
                write_cohort(folder, cases)
            used = run(command, folder)
            grown = "" if before is None else f"{1000 * (used.together - before[1]) / (cases - before[0]):.1f}"
            before = (cases, used.together)
            cells = (f"{used.seconds:.1f}", f"{1000 * used.seconds / cases:.1f}", f"{used.peak:.0f}")
            lines.append(f"| {command} | {cases} | {' | '.join(cells)} | {used.together:.0f} | {grown} |")
            print(lines[-1], flush=True)
    (given.out / "cohort_size.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_cohort(folder: Path, cases: int) -> None:
    """Write the files, the table and, last, the configuration."""
    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    header = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)).to_bytes()[:HEADER_BYTES]
    rng = np.random.default_rng(0)
    with (folder / "cohort.csv").open("w", encoding="utf-8") as table:
        table.write("case_id,patient_id,t1,organ,grade,size\n")
        for case in range(cases):
            scan, mask = rng.integers(0, 120, SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
            edge = 4 + case % 5
            mask[4 : 4 + edge, 4 : 4 + edge, 4 : 4 + edge] = 1
            scan[mask > 0] += 100
            for name, array in (("t1", scan), ("organ", mask)):
                (folder / f"{name}_{case:06}.nii").write_bytes(header + array.tobytes(order="F"))
            cells = (f"c{case:06}", f"p{case:06}", f"t1_{case:06}.nii", f"organ_{case:06}.nii")
            table.write(",".join((*cells, ("low", "high")[edge > 6], f"{edge**3}.{case % 10}")) + "\n")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")


def run(command: str, folder: Path) -> Used:
    """Run a command in a cohort's folder; a training begins with nothing prepared.

    Raises:
        RuntimeError: if it failed.
    """
    if command == "train":
        for name in ("run", ".medmtl-cache"):
            shutil.rmtree(folder / name, ignore_errors=True)
    words = [sys.executable, "-m", "medmtl", *COMMANDS[command], "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    start = time.monotonic()
    with (folder / f"{command}.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(words, cwd=folder, stdout=said, stderr=said, env=environment)
        together = 0.0
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            together = max(together, of_all(process.pid))
            time.sleep(LOOK_SECONDS)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}; see {said.name}")
    peak = usage.ru_maxrss / 1000  # ru_maxrss is in kilobytes on Linux
    return Used(time.monotonic() - start, peak, max(together, peak))


def of_all(pid: int) -> float:
    """Megabytes of a process and what those that it started hold on their own; 0 where it ended."""
    total, waiting = 0, [pid]
    while waiting:
        current = waiting.pop()
        try:
            lines = Path(f"/proc/{current}/smaps_rollup").read_text(encoding="ascii").splitlines()
            threads = [
                thread.read_text(encoding="ascii") for thread in Path(f"/proc/{current}/task").glob("*/children")
            ]
        except OSError:
            continue
        counted = "Rss:" if current == pid else ("Private_Clean:", "Private_Dirty:")
        total += sum(int(line.split()[1]) for line in lines if line.startswith(counted))
        waiting += [int(child) for children in threads for child in children.split()]
    return total / 1000


if __name__ == "__main__":
    main()
