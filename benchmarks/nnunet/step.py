"""What a training step costs beside nnU-Net: on its plan and network, at equal precision, and each at its best.

    python benchmarks/nnunet/step.py CONFIG --table cohort.csv --out FOLDER [--rounds 3] [--steps 3] [--env FOLDER]

nnU-Net is installed by the script into an environment of its own (FOLDER/env). Its planner plans; medmtl trains the
mask of CONFIG alone by ``plan.nnunet``: the same patch, batch, strides, kernels and channels. Arms, each measurement a
process of its own, in turn, round by round:

* ``nnU-Net as shipped``: its trainer's own step on its own loader and augmentation; on a CPU that is fp32.
* ``bare network``: nnU-Net's network and loss on batches that lie in memory, forward, backward and SGD; in fp32, and
  with the forward pass under autocast to bf16.
* ``medmtl``: its step, loader and augmentation included, in fp32 and in bf16.

A figure is the median over the steps of a measurement, behind a few that are not counted, and then over the rounds.
Processor time is that of all the process's threads and children; with ``--threads 1`` it is little changed by what else
the machine does, and with more it holds the waiting of threads for each other.
Rows are written as they come, and a call that is repeated goes on where it stopped. The table that is printed is also
written to FOLDER/step.md.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from calls import measured
from peer import Peer, parsed, ready_peer

SHIPPED, BARE, OURS = "nnU-Net as shipped", "bare network", "medmtl"
ARMS = (
    (SHIPPED, "fp32"),
    (BARE, "fp32"),
    (OURS, "fp32"),
    (BARE, "bf16"),
    (OURS, "bf16"),
)
Row = dict[str, Any]


def main() -> None:
    """Measure what is not in the file yet, and print the table."""
    given = parsed(__doc__, rounds=3, steps=3, warm=2)
    peer = ready_peer(given)
    wanted = [
        {"round": number, "arm": arm, "precision": precision}
        for number in range(given.rounds)
        for arm, precision in ARMS
    ]

    def measure(arm: str, precision: str, **_: Any) -> Row:
        return timed(peer, given, arm, precision)

    rows = measured(given.out / "step.jsonl", wanted, measure)
    text = table(rows, peer)
    (given.out / "step.md").write_text(text)
    print(text)


def timed(peer: Peer, given: argparse.Namespace, arm: str, precision: str) -> Row:
    """One measurement."""
    counts = {"fold": given.fold, "warm": given.warm, "steps": given.steps, "threads": given.threads}
    if arm == OURS:
        # what is made once is not timed, and would count to the peak
        peer.ask_ours(f"start-{precision}", do="start", precision=precision, fold=given.fold, threads=given.threads)
        return peer.ask_ours(f"step-medmtl-{precision}", do="step", precision=precision, **counts)
    return peer.ask(
        f"step-{arm.split()[0]}-{precision}", do="step", arm="shipped" if arm == SHIPPED else precision, **counts
    )


def table(rows: list[Row], peer: Peer) -> str:
    """A Markdown table of the arms, and the ratios that are asked about."""
    own = {key: [row for row in rows if (row["arm"], row["precision"]) == key] for key in ARMS}
    seconds = {key: median(row["seconds"] for row in found) for key, found in own.items()}
    processor = {key: median(row["processor"] for row in found) for key, found in own.items()}
    lines = [
        f"{peer.machine()}; {rows[0]['batch']} samples a step",
        "",
        "| arm | precision | s a step (least to most) | rate to nnU-Net as shipped "
        "| rate to the bare network, same precision | processor s a step | the two rates by it "
        "| peak of the main process, GB | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (arm, precision), found in own.items():
        value, spread = seconds[arm, precision], [row["seconds"] for row in found]
        own_processor = processor[arm, precision]
        lines.append(
            f"| {arm} | {precision} | {value:.2f} ({min(spread):.2f} to {max(spread):.2f}) | "
            f"{seconds[SHIPPED, 'fp32'] / value:.2f} | {seconds[BARE, precision] / value:.2f} | "
            f"{own_processor:.2f} | {processor[SHIPPED, 'fp32'] / own_processor:.2f} / "
            f"{processor[BARE, precision] / own_processor:.2f} | "
            f"{median(row['peak_bytes'] for row in found) / 1e9:.2f} | {found[0]['parameters']:,} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
