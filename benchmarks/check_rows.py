"""How the check grows with the table: seconds per 10,000 rows and peak memory, at a tenth of the rows and at all.

    python benchmarks/check_rows.py --rows 100000

Every row names the same few tiny files, so what is measured is the check and not the disk; the time of a table of
eight rows, which is that of starting the program, is taken off. The Markdown table that is printed is also written to
FOLDER/check_rows.md where --out names a folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medmtl.data.formats.nifti import write_mask
from medmtl.data.volume import Grid

FILES = 8
SHAPE = (8, 8, 8)
CONFIG = """\
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: patient_id, channels: {t1: t1}, allow: [shared-image]}
tasks:
  organ: {kind: segmentation, column: organ, labels: {organ: 1}}
  grade: {kind: classification, column: grade, classes: [low, high]}
  size:  {kind: regression, column: size}
split: {folds: 2}
training: {steps: 1}
"""


def main() -> None:
    """Measure both sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = ["| rows | s | s per 10,000 rows | peak memory, MB |", "|---|---|---|---|"]
    start, megabytes = measure(FILES)
    lines.append(f"| {FILES} | {start:.1f} | | {megabytes:.0f} |")
    for rows in (max(FILES, given.rows // 10), given.rows):
        seconds, megabytes = measure(rows)
        lines.append(f"| {rows} | {seconds:.1f} | {(seconds - start) * 10_000 / rows:.2f} | {megabytes:.0f} |")
    text = "\n".join(lines) + "\n"
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "check_rows.md").write_text(text)
    print(text)


def measure(rows: int) -> tuple[float, float]:
    """Seconds and megabytes of the check of a table of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), rows)
        return check(Path(folder))


def write_cohort(folder: Path, rows: int) -> None:
    """Write a few files and a table that names them again and again; a shared image has one patient."""
    rng = np.random.default_rng(0)
    grid = Grid(SHAPE, np.eye(4))
    for number in range(FILES):
        write_mask(folder / f"t1_{number}.nii.gz", rng.integers(0, 200, SHAPE), grid)
        write_mask(folder / f"organ_{number}.nii.gz", rng.integers(0, 2, SHAPE), grid)
    with (folder / "cohort.csv").open("w") as table:
        table.write("case_id,patient_id,t1,organ,grade,size\n")
        for row in range(rows):
            file = row % FILES
            cells = (f"c{row:07}", f"p{file}", f"t1_{file}.nii.gz", f"organ_{file}.nii.gz")
            table.write(",".join((*cells, ("low", "high")[row % 2], f"{row % 997}.5")) + "\n")
    (folder / "config.yaml").write_text(CONFIG)


def check(folder: Path) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of ``medmtl check``.

    Raises:
        RuntimeError: if the check found the cohort not fit.
    """
    words = [sys.executable, "-m", "medmtl", "check", "config.yaml", "--quiet"]
    start = time.monotonic()
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"the check ended with {process.returncode}: {said[-500:]}")
    return seconds, usage.ru_maxrss / 1000  # ru_maxrss is in kilobytes on Linux


if __name__ == "__main__":
    main()
