"""``kinds``: what a configuration may name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from medmtl.commands.options import Quiet, Verbose
from medmtl.console import Screen, answer, kind_lines


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
