"""``evaluate``, ``predict`` and ``report``: what a trained run is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medmtl.arguments import named_values
from medmtl.commands.options import Device, Quiet, Run, Verbose
from medmtl.console import Screen, answer, metric_lines


def evaluate(
    run: Run,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Another cohort: an external validation on all its cases.")
    ] = None,
    split: Annotated[
        Literal["val", "test", "all"] | None,
        typer.Option(help="Which cases; by default val, or all of another cohort.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; by default RUN/evaluation/SPLIT.")
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Another cohort may share patients or images; then not external.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict and score a run's own cases, or those of another cohort, and write the report."""
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose) as screen:
        scores = api.evaluate(
            run,
            config=config,
            split=split,
            out=out,
            allow_overlap=allow_overlap,
            device=device,
            progress=screen.progress,
        )
    for found in scores.values():
        answer("\n".join([*metric_lines(found.metrics), "", f"report: {found.folder / 'report.html'}"]))


def predict(
    run: Run,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="A configuration, a table, CHANNEL=FILE of a case, or images of one channel.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for masks and predictions.csv.")],
    device: Device = "auto",
    covariate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A clinical covariate of one case; NAME= where it is missing."),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Also look at mirror images; slower.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict cases that need no labels."""
    covariates = named_values(covariate or (), "--covariate")
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose) as screen:
        written = api.predict(run, inputs, out, covariates=covariates, device=device, tta=tta, progress=screen.progress)
    answer(str(written))


def report(
    run: Run,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Another cohort, where that was evaluated.")
    ] = None,
    split: Annotated[
        Literal["val", "test", "train"] | None,
        typer.Option(help="Which evaluated cases; by default val, or all of another cohort.", show_default=False),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Leave out ids, images and per-case values.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the page of an evaluated run again."""
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose):
        answer(str(api.report(run, config=config, split=split, share=share)))
