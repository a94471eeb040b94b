"""``demo`` and ``synth``: the synthetic tumour cohort."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from medmtl.commands.options import Quiet, Verbose
from medmtl.console import Screen, answer, metric_lines


def demo(
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder; by default the first free medmtl-demo-N.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a synthetic tumour cohort, train on it, evaluate and predict; under 3 minutes on two cores."""
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose) as screen:
        report = api.demo(out, progress=screen.progress)
    _, _, run, place = report.parents[:4]
    with (place / "prediction" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        case = next(csv.DictReader(file))["case_id"]
    answer("\n".join(metric_lines(json.loads(report.with_name("metrics.json").read_text(encoding="utf-8")))))
    config = place / "cohort" / "config.yaml"
    image = place / "cohort" / "images" / f"{case}.nii.gz"
    steps = (
        ("synth", "--out", place / "cohort", "--cases", api.DEMO_CASES),
        ("check", config),
        ("plan", config),
        ("train", config, "--out", run, "--device", "cpu"),
        ("evaluate", run, "--device", "cpu"),
        ("predict", run, image, "--out", place / "prediction", "--device", "cpu"),
    )
    lines = [
        "",
        f"cohort:     {place / 'cohort'}",
        f"run:        {run}",
        f"prediction: {place / 'prediction'}",
        f"report:     {report}",
        "",
        "The same, step by step:",
        *(f"  {shlex.join(['medmtl', *map(str, step)])}" for step in steps),
    ]
    answer("\n".join(lines))


def synth(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or an empty folder.")],
    cases: Annotated[int, typer.Option(help="10 or more.")] = 60,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.")] = 0,
    preset: Annotated[Literal["easy", "hard"], typer.Option(help="How much the image tells.")] = "easy",
    channels: Annotated[int, typer.Option(help="Images per case.")] = 1,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a synthetic tumour cohort with its configuration."""
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose):
        answer(str(api.synth(out, cases=cases, seed=seed, preset=preset, channels=channels)))
