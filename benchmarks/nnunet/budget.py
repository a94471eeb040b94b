"""What nnU-Net reaches in a fixed number of minutes: its schedule is given the budget and ends with it.

    python benchmarks/nnunet/budget.py CONFIG --table cohort.csv --out FOLDER --minutes 10 [--seeds 1] [--env FOLDER]

Its trainer trains on the fold's cases for the minutes, loader and augmentation included, and then validates as it does
after every training, mirror images included; the validation is not counted. The learning rate falls along its own curve
over the minutes. Arms: its own step and batch (``shipped``), the same under autocast to bf16, and both with 2 samples a
step. Dice is the mean over the held-out cases. Rows are written as they come, and a call that is repeated goes on where
it stopped. The table that is printed is also written to FOLDER/budget.md.
"""

from __future__ import annotations

from typing import Any

from calls import measured
from peer import Peer, parsed, ready_peer

ARMS: dict[str, tuple[str, int | None]] = {
    "as shipped": ("shipped", None),
    "bf16": ("bf16", None),
    "as shipped, batch 2": ("shipped", 2),
    "bf16, batch 2": ("bf16", 2),
}
Row = dict[str, Any]


def main() -> None:
    """Train what is not in the file yet, and print the table."""
    given = parsed(__doc__, minutes=10.0, seeds=1)
    peer = ready_peer(given)
    wanted = [{"arm": arm, "seed": seed} for seed in range(given.seeds) for arm in ARMS]

    def measure(arm: str, seed: int) -> Row:
        precision, batch = ARMS[arm]
        asked = {"fold": given.fold, "minutes": given.minutes, "threads": given.threads, "seed": seed}
        log = f"budget-{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
        return peer.ask(log, do="train", precision=precision, batch=batch, **asked)

    file = given.out / f"budget-{given.minutes:g}-fold{given.fold}-threads{given.threads}.jsonl"
    rows = measured(file, wanted, measure)
    text = table(rows, peer, given.minutes, given.fold)
    (given.out / "budget.md").write_text(text)
    print(text)


def table(rows: list[Row], peer: Peer, minutes: float, fold: int) -> str:
    """A Markdown table of all runs."""
    names = {str(value): name for name, value in vars(peer.ready.config.tasks[peer.name])["labels"].items()}
    lines = [
        f"{peer.machine()}; {minutes:g} minutes, fold {fold}",
        "",
        f"| nnU-Net | seed | samples a step | steps | Dice, mean | {' | '.join(names.values())} |",
        "|---" * (5 + len(names)) + "|",
    ]
    for row in rows:
        scores = [row["mean"], *(row["dice"][label] for label in names)]
        cells = [row["arm"], row["seed"], row["batch"], row["steps"], *(f"{score:.3f}" for score in scores)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
