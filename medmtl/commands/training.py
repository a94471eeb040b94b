"""``train`` and ``profile``: what runs training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmtl.arguments import fold_of
from medmtl.commands.options import ConfigFile, Device, Quiet, Settings, Verbose
from medmtl.console import Screen, answer, profile_lines


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
