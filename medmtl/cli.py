"""The program: its parser, what it does around every command, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from medmtl import __version__
from medmtl.arguments import Command, check_words
from medmtl.commands import COMMANDS
from medmtl.console import answer, let_go_of_streams, open_missing_streams
from medmtl.ending import told
from medmtl.errors import LATER, not_in_this_version

app = typer.Typer(
    name="medmtl",
    add_completion=False,
    rich_markup_mode=None,
)


def _later(context: typer.Context) -> None:
    """Not in this version."""
    raise not_in_this_version(f"the command {context.info_name}")


for _command in COMMANDS:
    app.command(cls=Command)(_command)
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
