"""The command line: every command is one call of :mod:`medmtl.api`.

The library is imported inside the commands, so that ``--help`` and a mistyped option answer at once.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from medmtl import __version__
from medmtl.arguments import Command, check_place, check_words, fold_of, named_values
from medmtl.console import (
    Screen,
    answer,
    config_findings,
    expectation_lines,
    finding_lines,
    kind_lines,
    let_go_of_streams,
    metric_lines,
    open_missing_streams,
    plan_rows,
    profile_lines,
    table,
    verdict,
)
from medmtl.ending import told
from medmtl.errors import (
    CohortError,
    ConfigError,
    InputError,
)

LATER = ("compare", "export", "convert", "view", "runs")

app = typer.Typer(
    name="medmtl",
    add_completion=False,
    rich_markup_mode=None,
)

Quiet = Annotated[bool, typer.Option("--quiet", help="Show warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show details.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings and repairs of the check count as faults.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as training.lr=1e-3.")
]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of fold-K.")]


@app.command(cls=Command)
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


@app.command(cls=Command)
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


@app.command(cls=Command)
def check(
    config: ConfigFile,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every finding there.")
    ] = None,
    strict: Strict = False,
    headers: Annotated[bool, typer.Option("--headers", help="Read headers only, no voxels.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run every check on every row and file, in one pass."""
    check_place(json_file, "--json")
    from medmtl import api
    from medmtl.files import write_json

    with Screen(quiet=quiet, verbose=verbose) as screen:
        _refuse_input(json_file, config)
        try:
            found = api.check_report(config, headers=headers, progress=screen.progress)
        except (CohortError, ConfigError) as error:
            faults = error.findings if isinstance(error, CohortError) else config_findings(error)
            if json_file is not None:
                write_json(json_file, [finding.to_json() for finding in faults])
            raise
        if json_file is not None:
            write_json(json_file, [finding.to_json() for finding in found.findings])
    refused = any(strict or finding.severity == "reject" for finding in found.findings)
    closing = verdict(found.findings, refused=refused, headers=headers)
    answer("\n".join([*finding_lines(found.findings), *expectation_lines(found.expectations), closing]))
    if refused:
        raise typer.Exit(InputError.exit_code)


def _refuse_input(out: Path | None, config: Path) -> None:
    """Refuse to write where the configuration, its table, an image or a label is."""
    from medmtl import config as configuration
    from medmtl.build import build_tasks
    from medmtl.checking.outputs import cohort_files, refuse_overwriting

    if out is None:
        return
    refuse_overwriting([out], (config,))
    with suppress(ConfigError):  # which the command itself tells
        resolved = configuration.load(config)
        refuse_overwriting([out], cohort_files(resolved, build_tasks(resolved)))


@app.command(cls=Command)
def plan(
    config: ConfigFile,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the plan there, as JSON.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a training would do, and why."""
    check_place(out, "--out")
    from medmtl import api
    from medmtl.files import write_json

    with Screen(quiet=quiet, verbose=verbose) as screen:
        _refuse_input(out, config)
        planned = api.plan(config, progress=screen.progress).to_json()
        if out is not None:
            write_json(out, planned)
    answer(table([("planned", "value", "reason"), *plan_rows(planned)]))


@app.command(cls=Command)
def train(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make.")],
    fold: Annotated[
        str, typer.Option(metavar="K|all|none", help="One fold; all of them; or all cases but the test split.")
    ] = "0",
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run at RUN.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check, plan, prepare and train."""
    chosen = fold_of(fold)
    from medmtl import api
    from medmtl.config import parse_overrides

    overrides = parse_overrides(settings or ())
    with Screen(quiet=quiet, verbose=verbose) as screen:
        run = api.train(
            config,
            out,
            fold=chosen,
            device=device,
            resume=resume,
            overrides=overrides,
            progress=screen.progress,
        )
    answer(str(run))


@app.command(cls=Command)
def profile(
    config: ConfigFile,
    steps: Annotated[int, typer.Option(help="Steps to time.")] = 30,
    device: Device = "auto",
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell where the time of a training step goes."""
    from medmtl import api
    from medmtl.config import parse_overrides

    overrides = parse_overrides(settings or ())
    with Screen(quiet=quiet, verbose=verbose) as screen:
        found = api.profile(config, steps=steps, device=device, overrides=overrides, progress=screen.progress)
    answer("\n".join(profile_lines(found)))


@app.command(cls=Command)
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


@app.command(cls=Command)
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


@app.command(cls=Command)
def report(
    run: Run,
    share: Annotated[bool, typer.Option("--share", help="Leave out ids, images and per-case values.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the page of an evaluated run again."""
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose):
        answer(str(api.report(run, share=share)))


@app.command(cls=Command)
def kinds(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List every kind with its options."""
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose):
        known = api.kinds()
    answer(json.dumps(known, indent=2) if as_json else "\n".join(kind_lines(known)))


def _later(context: typer.Context) -> None:
    """Not in this version."""
    raise InputError(f"the command {context.info_name} is not in this version of medmtl")


for _name in LATER:
    app.command(_name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(_later)


def _show_version(wanted: bool) -> None:
    if wanted:
        answer(f"medmtl {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Joint segmentation, classification and regression on cohorts of 3D medical images."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code; see :mod:`medmtl.errors`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _stop_as_by_ctrl_c()
    open_missing_streams()
    umask = os.umask(0o077)  # what a cohort and its models say is its owner's alone, whatever the shell allows
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return told(error, verbose="--verbose" in words)
    finally:
        os.umask(umask)
        let_go_of_streams()


def _stop_as_by_ctrl_c() -> None:
    """SIGTERM and a lost terminal end as Ctrl-C does, unless they are ignored; training catches all for itself."""
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _run(words: list[str]) -> int:
    check_words(words)
    command = typer.main.get_command(app)
    try:
        # not command.main(), which ends the process by itself and gives every interruption its own code
        with command.make_context("medmtl", words) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0
