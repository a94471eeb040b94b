"""What it costs to get from a cohort's files to cases that are ready to train on, beside nnU-Net.

    python benchmarks/nnunet/prepare.py CONFIG --table cohort.csv --out FOLDER [--rounds 3] [--env FOLDER]

Both read the same NIfTI files and prepare them at the same spacing, one after the other on one thread; each measurement
is a process of its own, in turn, round by round. Imports are not counted.

* ``nnU-Net, one process``: its command's function with one worker, for ``3d_fullres`` alone: read, crop to what is not
  0, normalise, resample by splines, draw places of the foreground, compress and write; the start of the worker and the
  copies of the masks included.
* ``nnU-Net, no pool``: the same on every case without the worker and without the copies.
* ``medmtl, one worker``: read, hash, orient, resample linearly, statistics, places of the foreground, write without
  compression with a hash of every file, and read those hashes again.

*Before it* is what either does first: fingerprint and plan; the check of every file and the plan. Processor time is
that of all threads and children, which what else the machine does changes little. Rows are written as they come, and a
call that is repeated goes on where it stopped. The table that is printed is also written to FOLDER/prepare.md.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from statistics import median
from typing import Any

from calls import measured
from peer import DATASET, Peer, parsed, ready_peer

POOL, ALONE, OURS = "nnU-Net, one process", "nnU-Net, no pool", "medmtl, one worker"
ARMS = (POOL, ALONE, OURS)
Row = dict[str, Any]


def main() -> None:
    """Measure what is not in the file yet, and print the table."""
    given = parsed(__doc__, rounds=3)
    peer = replace(ready_peer(given), threads=1)
    wanted = [{"round": number, "arm": arm} for number in range(given.rounds) for arm in ARMS]

    def measure(arm: str, **_: Any) -> Row:
        return timed(peer, given.fold, arm)

    rows = measured(given.out / "prepare.jsonl", wanted, measure)
    text = table(rows, peer)
    (given.out / "prepare.md").write_text(text)
    print(text)


def timed(peer: Peer, fold: int, arm: str) -> Row:
    """One measurement, on an empty folder."""
    if arm == OURS:
        return peer.ask_ours("prepare-medmtl", do="prepare", fold=fold, workers=1)
    place = "prepared-timed"
    shutil.rmtree(peer.out / place, ignore_errors=True)
    (peer.out / place / DATASET).mkdir(parents=True)
    planned = peer.ask("plan-timed", place, do="plan", processes=1)
    kept = peer.ask("prepare-timed", place, do="prepare", processes=1 if arm == POOL else 0)
    return {**kept, "plan": planned["seconds"], "plan_processor": planned["processor"]}


def table(rows: list[Row], peer: Peer) -> str:
    """A Markdown table of the arms, and the ratios that are asked about."""
    own = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    seconds = {arm: median(row["seconds"] for row in found) for arm, found in own.items()}
    processor = {arm: median(row["processor"] for row in found) for arm, found in own.items()}
    before = {arm: median(row["plan_processor"] for row in found) for arm, found in own.items()}
    lines = [
        f"{peer.machine()}; {len(peer.ready.checked.cohort.cases)} cases",
        "",
        "| arm | prepare, s (least to most) | to medmtl | processor s | to medmtl | before it, s | processor s "
        "| both, processor s, to medmtl | on disk, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, found in own.items():
        spread = [row["seconds"] for row in found]
        lines.append(
            f"| {arm} | {seconds[arm]:.2f} ({min(spread):.2f} to {max(spread):.2f}) "
            f"| {seconds[arm] / seconds[OURS]:.2f} | {processor[arm]:.2f} | {processor[arm] / processor[OURS]:.2f} "
            f"| {median(row['plan'] for row in found):.2f} | {before[arm]:.2f} "
            f"| {(processor[arm] + before[arm]) / (processor[OURS] + before[OURS]):.2f} "
            f"| {found[0]['bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
