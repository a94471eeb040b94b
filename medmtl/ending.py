"""How the program ends when something went wrong: one sentence on standard error, and the exit code."""

from __future__ import annotations

import traceback

import typer

from medmtl import __version__
from medmtl.arguments import in_words
from medmtl.console import finding_lines, remark
from medmtl.disk import why
from medmtl.errors import (
    CohortError,
    InputError,
    InterruptedRun,
    MachineError,
    MedmtlError,
    WorkError,
    out_of_memory,
)


def told(error: BaseException, *, verbose: bool) -> int:
    """Tell the user what happened; returns the exit code, see :mod:`medmtl.errors`.

    Args:
        error: what ended a command.
        verbose: show where, if it is a bug of ours.
    """
    if isinstance(error, typer.TyperException):
        remark(f"error: {in_words(error)}")
        return InputError.exit_code
    if isinstance(error, MedmtlError):
        if isinstance(error, CohortError):
            remark("\n".join(finding_lines(error.findings)))
        remark(f"error: {error}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        remark("interrupted")
        return InterruptedRun.exit_code
    if isinstance(error, BrokenPipeError):
        return WorkError.exit_code  # whoever read the answer left
    if isinstance(error, OSError):
        remark(f"error: {why(error)}")
        return WorkError.exit_code
    if (wanted := out_of_memory(error)) is not None:
        remark(f"error: {wanted}; lower plan.memory_gb or plan.workers, or use a machine with more memory")
        return MachineError.exit_code
    if verbose:
        remark("".join(traceback.format_exception(error)))
    hint = "" if verbose else "; --verbose shows where"
    remark(f"error: this is a bug in medmtl {__version__}: {type(error).__name__}: {error}{hint}")
    return MedmtlError.exit_code
