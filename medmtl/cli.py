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
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from medmtl import __version__
from medmtl.console import Screen, answer, finding_lines, kind_lines, metric_lines, plan_rows, remark, table
from medmtl.errors import CohortError, InputError, InterruptedRun, MedmtlError, WorkError

LATER = ("compare", "export", "convert", "profile", "view", "runs")

app = typer.Typer(
    name="medmtl",
    add_completion=False,
    rich_markup_mode=None,
)

Quiet = Annotated[bool, typer.Option("--quiet", help="Show warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show details.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of fold-K.")]


@app.command()
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


@app.command()
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


@app.command()
def check(
    config: ConfigFile,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every finding there.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings and repairs count as faults.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run every check on every row and file, in one pass."""
    from medmtl import api
    from medmtl.files import write_json

    with Screen(quiet=quiet, verbose=verbose) as screen:
        try:
            findings = api.check(config, progress=screen.progress)
        except CohortError as error:
            if json_file is not None:
                write_json(json_file, [finding.to_json() for finding in error.findings])
            raise
        if json_file is not None:
            write_json(json_file, [finding.to_json() for finding in findings])
    counts = {name: sum(finding.severity == name for finding in findings) for name in ("reject", "warn", "fixed")}
    refused = bool(findings) if strict else counts["reject"] > 0
    closing = f"{counts['reject']} rejected, {counts['warn']} warned about, {counts['fixed']} repaired: "
    answer("\n".join([*finding_lines(findings), closing + ("not fit for training" if refused else "fit for training")]))
    if refused:
        raise typer.Exit(InputError.exit_code)


@app.command()
def plan(
    config: ConfigFile,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the plan there, as JSON.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a training would do, and why."""
    from medmtl import api
    from medmtl.files import write_json

    with Screen(quiet=quiet, verbose=verbose) as screen:
        planned = api.plan(config, progress=screen.progress).to_json()
        if out is not None:
            write_json(out, planned)
    answer(table([("planned", "value", "reason"), *plan_rows(planned)]))


@app.command()
def train(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make.")],
    fold: Annotated[
        str, typer.Option(metavar="K|all|none", help="One fold; all of them; or all cases but the test split.")
    ] = "0",
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run at RUN.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as training.lr=1e-3.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check, plan, prepare and train."""
    chosen = _fold(fold)
    from medmtl import api
    from medmtl.config import parse_override

    overrides = dict(parse_override(text) for text in settings or ())
    with Screen(quiet=quiet, verbose=verbose) as screen:
        run = api.train(
            config, out, fold=chosen, device=device, resume=resume, overrides=overrides, progress=screen.progress
        )
    answer(str(run))


@app.command()
def evaluate(
    run: Run,
    split: Annotated[Literal["val", "test", "all"], typer.Option(help="Which cases.")] = "val",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; by default RUN/evaluation/SPLIT.")
    ] = None,
    device: Device = "auto",
    config: Annotated[str | None, typer.Option(hidden=True)] = None,
    allow_overlap: Annotated[bool, typer.Option("--allow-overlap", hidden=True)] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict and score a run's own cases, and write the report."""
    _refuse_options("evaluate", {"--config": config, "--allow-overlap": allow_overlap})
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose) as screen:
        scores = api.evaluate(run, split=split, out=out, device=device, progress=screen.progress)
    for found in scores.values():
        answer("\n".join([*metric_lines(found.metrics), "", f"report: {found.folder / 'report.html'}"]))


@app.command()
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
    covariate: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    tta: Annotated[bool, typer.Option("--tta", hidden=True)] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict cases that need no labels."""
    _refuse_options("predict", {"--covariate": covariate, "--tta": tta})
    from medmtl import api

    with Screen(quiet=quiet, verbose=verbose) as screen:
        written = api.predict(run, inputs, out, device=device, progress=screen.progress)
    answer(str(written))


@app.command()
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


@app.command()
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
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except typer.TyperException as error:
        # typer hands on the words of its validator
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        remark(f"error: {message}; see medmtl --help")
        return InputError.exit_code
    except MedmtlError as error:
        if isinstance(error, CohortError):
            remark("\n".join(finding_lines(error.findings)))
        remark(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        remark("interrupted")
        return InterruptedRun.exit_code
    except BrokenPipeError:
        # whoever read the answer left; without this the interpreter would complain when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WorkError.exit_code
    except OSError as error:
        place = f": {error.filename}" if error.filename is not None else ""
        remark(f"error: {error.strerror or error}{place}")
        return WorkError.exit_code
    except Exception as error:
        if "--verbose" in words:
            remark(traceback.format_exc())
        hint = "" if "--verbose" in words else "; --verbose shows where"
        remark(f"error: this is a bug in medmtl {__version__}: {type(error).__name__}: {error}{hint}")
        return MedmtlError.exit_code


def _stop_as_by_ctrl_c() -> None:
    """SIGTERM and a lost terminal end as Ctrl-C does, unless they are ignored; training catches all for itself."""
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _run(words: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        # not command.main(), which ends the process by itself and gives every interruption its own code
        with command.make_context("medmtl", words) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _fold(text: str) -> int | Literal["all", "none"]:
    if text == "all":
        return "all"
    if text == "none":
        return "none"
    if not text.isascii() or not text.isdecimal():
        raise InputError(f"--fold wants a number, all or none, found {text!r}")
    return int(text)


def _refuse_options(command: str, options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise InputError(f"{command} {given[0]} is not in this version of medmtl")
