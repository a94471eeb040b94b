"""What prediction costs beside nnU-Net: time of a case, from its files to its mask, and peak memory.

    python benchmarks/nnunet/predict.py CONFIG --table cohort.csv --out FOLDER [--rounds 3] [--cases 40] [--env FOLDER]

The cases are the fold's held-out ones. Both run nnU-Net's network in windows of its patch, half overlapping, weighted
alike, without mirror images. The weights are those before the first step, which changes neither time nor memory. Each
measurement is a process of its own, in turn, round by round. Seconds are those of the call that loads the model,
predicts and writes all masks; ``command`` adds the start of the program and its imports.

* ``nnU-Net, as shipped``: ``predict_from_files`` with three processes that prepare and three that write.
* ``nnU-Net, one process``: ``predict_from_files_sequential``.
* ``medmtl``: ``medmtl.predict`` in fp32 and in bf16.

*Peak* is the most that the main process held (VmHWM), and the most that it and all its children held together, looked
at twice a second. Rows are written as they come, and a call that is repeated goes on where it stopped. The table
that is printed is also written to FOLDER/predict.md.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from calls import measured
from peer import DATASET, ENDING, Peer, parsed, ready_peer

SHIPPED, ALONE, OURS, OURS_BF16 = "nnU-Net, as shipped", "nnU-Net, one process", "medmtl, fp32", "medmtl, bf16"
ARMS = {SHIPPED: 3, ALONE: 0, OURS: "fp32", OURS_BF16: "bf16"}
Row = dict[str, Any]


def main() -> None:
    """Measure what is not in the file yet, and print the table."""
    given = parsed(__doc__, rounds=3, cases=40)
    peer = ready_peer(given)
    names = list(peer.ready.splits.folds[given.fold].val)[: given.cases]
    table_of_cases = write_table(peer, names)
    model = peer.ask("checkpoint", do="checkpoint", fold=given.fold)["folder"]
    wanted = [{"round": number, "arm": arm} for number in range(given.rounds) for arm in ARMS]

    def measure(arm: str, **_: Any) -> Row:
        return timed(peer, given.fold, arm, model, table_of_cases, names)

    rows = measured(given.out / "predict.jsonl", wanted, measure)
    text = table(rows, peer)
    (given.out / "predict.md").write_text(text)
    print(text)


def write_table(peer: Peer, names: list[str]) -> Path:
    """The chosen cases as a table without labels."""
    section = peer.ready.config.cohort
    cases = {case.case_id: case for case in peer.ready.checked.cohort.cases}
    place = peer.out / "chosen.csv"
    with place.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([section.case, *section.columns.values()])
        out.writerows([name, *(cases[name].images[channel] for channel in section.columns)] for name in names)
    return place


def timed(peer: Peer, fold: int, arm: str, model: str, cases: Path, names: list[str]) -> Row:
    """One measurement; as many masks as cases must have come."""
    place, held = peer.out / "predicted", ARMS[arm]
    shutil.rmtree(place, ignore_errors=True)
    common = {"do": "predict", "masks": str(place), "threads": peer.threads}
    if isinstance(held, str):
        run = peer.ask_ours("checkpoint-medmtl", do="checkpoint", precision=held, fold=fold, threads=peer.threads)
        row = peer.ask_ours(f"predict-medmtl-{held}", folder=run["folder"], cases=str(cases), **common)
    else:
        images = peer.out / "raw" / DATASET / "imagesTr"
        files = {name: sorted(map(str, images.glob(f"{name}_????{ENDING}"))) for name in names}
        row = peer.ask(f"predict-nnunet-{held}", folder=model, fold=fold, cases=files, processes=held, **common)
    written = len(list(place.rglob(f"*{ENDING}")))
    if written != len(names):
        raise SystemExit(f"{arm}: {len(names)} masks are expected in {place}, found {written}")
    return {**row, "cases": len(names)}


def table(rows: list[Row], peer: Peer) -> str:
    """A Markdown table of the arms, and the ratios that are asked about."""
    own = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    value = {
        (arm, key): median(row[key] for row in found)
        for arm, found in own.items()
        for key in ("seconds", "processor", "wall", "peak_bytes", "tree_bytes")
    }
    count = rows[0]["cases"]
    lines = [
        f"{peer.machine()}; {count} cases",
        "",
        "| arm | s a case (least to most) | speed to shipped / one process | processor s a case "
        "| speed by it to shipped / one process | command, s | peak of the main process, GB "
        "| to one process | peak of all its processes, GB | to shipped |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, found in own.items():
        seconds, spread = value[arm, "seconds"], [row["seconds"] / count for row in found]
        main_peak, all_peak = value[arm, "peak_bytes"], value[arm, "tree_bytes"]
        lines.append(
            f"| {arm} | {seconds / count:.3f} ({min(spread):.3f} to {max(spread):.3f}) "
            f"| {value[SHIPPED, 'seconds'] / seconds:.2f} / {value[ALONE, 'seconds'] / seconds:.2f} "
            f"| {value[arm, 'processor'] / count:.3f} "
            f"| {value[SHIPPED, 'processor'] / value[arm, 'processor']:.2f} / "
            f"{value[ALONE, 'processor'] / value[arm, 'processor']:.2f} "
            f"| {value[arm, 'wall']:.1f} "
            f"| {main_peak / 1e9:.2f} | {main_peak / value[ALONE, 'peak_bytes']:.2f} "
            f"| {all_peak / 1e9:.2f} | {all_peak / value[SHIPPED, 'tree_bytes']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
