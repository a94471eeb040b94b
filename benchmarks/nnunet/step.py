"""What a training step costs beside nnU-Net: on its plan and network, at equal precision, and each at its best.

    python benchmarks/nnunet/step.py CONFIG --table cohort.csv --out FOLDER [--rounds 3] [--steps 3] [--env FOLDER]

nnU-Net is installed by the script into an environment of its own (FOLDER/env). Its planner plans; medmtl trains the
mask of CONFIG alone by ``plan.nnunet``: the same patch, batch, strides, kernels and channels. Arms, each measurement a
process of its own, in turn, round by round:

* ``nnU-Net as shipped``: its trainer's own step on its own loader and augmentation; on a CPU that is fp32.
* ``nnU-Net's network alone``: it and its loss on batches that lie in memory, forward, backward and SGD; in fp32, and
  with the forward pass under autocast to bf16.
* ``medmtl``: its step, loader and augmentation included, in fp32 and in bf16.
* ``medmtl's network alone``: it and its loss on batches that lie in memory, forward, backward and AdamW, in both.

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

SHIPPED, BARE = "nnU-Net as shipped", "nnU-Net's network alone"
OURS, OURS_BARE = "medmtl", "medmtl's network alone"
ARMS = (
    (SHIPPED, "fp32"),
    *((arm, precision) for precision in ("fp32", "bf16") for arm in (BARE, OURS, OURS_BARE)),
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
    if arm in (OURS, OURS_BARE):
        # what is made once is not timed, and would count to the peak
        peer.ask_ours(f"start-{precision}", do="start", precision=precision, fold=given.fold, threads=given.threads)
        alone = arm == OURS_BARE
        log = f"step-medmtl-{'network' if alone else 'whole'}-{precision}"
        return peer.ask_ours(log, do="step", alone=alone, precision=precision, **counts)
    chosen = "shipped" if arm == SHIPPED else precision
    return peer.ask(f"step-nnunet-{chosen}", do="step", arm=chosen, **counts)


def table(rows: list[Row], peer: Peer) -> str:
    """A Markdown table of the arms, and the ratios that are asked about."""
    own = {key: [row for row in rows if (row["arm"], row["precision"]) == key] for key in ARMS}
    seconds = {key: median(row["seconds"] for row in found) for key, found in own.items()}
    processor = {key: median(row["processor"] for row in found) for key, found in own.items()}
    lines = [
        f"{peer.machine()}; {rows[0]['batch']} samples a step",
        "",
        "| arm | precision | s a step (least to most) | rate to nnU-Net as shipped / nnU-Net's network alone "
        "/ medmtl's, same precision | processor s a step | the three rates by it "
        "| peak of the main process, GB | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (arm, precision), found in own.items():
        spread = [row["seconds"] for row in found]
        lines.append(
            f"| {arm} | {precision} | {seconds[arm, precision]:.2f} ({min(spread):.2f} to {max(spread):.2f}) | "
            f"{rates(seconds, arm, precision)} | {processor[arm, precision]:.2f} | "
            f"{rates(processor, arm, precision)} | "
            f"{median(row['peak_bytes'] for row in found) / 1e9:.2f} | {found[0]['parameters']:,} |"
        )
    return "\n".join(lines) + "\n"


def rates(costs: dict[tuple[str, str], float], arm: str, precision: str) -> str:
    """Of an arm to nnU-Net as shipped and to either network alone."""
    own = costs[arm, precision]
    others = (costs[SHIPPED, "fp32"], costs[BARE, precision], costs[OURS_BARE, precision])
    return " / ".join(f"{other / own:.3f}" for other in others)


if __name__ == "__main__":
    main()
