"""``check`` and ``plan``: a cohort before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from medmtl.arguments import check_place
from medmtl.commands.options import ConfigFile, Quiet, Settings, Strict, Verbose
from medmtl.console import (
    Screen,
    answer,
    config_findings,
    expectation_lines,
    finding_lines,
    label_lines,
    table,
    verdict,
)
from medmtl.errors import CohortError, ConfigError, InputError


def check(
    config: ConfigFile,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every finding there.")
    ] = None,
    strict: Strict = False,
    headers: Annotated[bool, typer.Option("--headers", help="Read headers only, no voxels.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run every check on every row and file, in one pass."""
    check_place(json_file, "--json")
    from medmtl import api
    from medmtl.config import parse_overrides
    from medmtl.files import write_json

    overrides = parse_overrides(settings or ())
    with Screen(quiet=quiet, verbose=verbose) as screen:
        _refuse_input(json_file, config, overrides)
        try:
            found = api.check_report(config, headers=headers, overrides=overrides, progress=screen.progress)
        except (CohortError, ConfigError) as error:
            faults = error.findings if isinstance(error, CohortError) else config_findings(error)
            if json_file is not None:
                write_json(json_file, [finding.to_json() for finding in faults])
            raise
        if json_file is not None:
            write_json(json_file, [finding.to_json() for finding in found.findings])
    refused = any(finding.severity == "reject" or (strict and not finding.counts_missing) for finding in found.findings)
    closing = verdict(found.findings, refused=refused, headers=headers)
    lines = [*finding_lines(found.findings, found.label_files), *label_lines(found.labels)]
    answer("\n".join([*lines, *expectation_lines(found.expectations), closing]))
    if refused:
        raise typer.Exit(InputError.exit_code)


def plan(
    config: ConfigFile,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the plan there, as JSON.")] = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a training would do, and why."""
    check_place(out, "--out")
    from medmtl import api
    from medmtl.config import parse_overrides
    from medmtl.files import write_json
    from medmtl.planning import plan_rows

    overrides = parse_overrides(settings or ())
    with Screen(quiet=quiet, verbose=verbose) as screen:
        _refuse_input(out, config, overrides)
        planned = api.plan(config, overrides=overrides, progress=screen.progress).to_json()
        if out is not None:
            write_json(out, planned)
    answer(table([("planned", "value", "reason"), *plan_rows(planned)]))


def _refuse_input(out: Path | None, config: Path, overrides: Mapping[str, Any]) -> None:
    """Refuse to write where the configuration, its table, an image or a label is."""
    from medmtl import config as configuration
    from medmtl.build import build_tasks
    from medmtl.checking.outputs import cohort_files, refuse_overwriting

    if out is None:
        return
    refuse_overwriting([out], (config,))
    with suppress(ConfigError):  # which the command itself tells
        resolved = configuration.load(config, overrides)
        refuse_overwriting([out], cohort_files(resolved, build_tasks(resolved)))
