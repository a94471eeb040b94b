"""The commands of the program, a module for each group of them; every command is one call of :mod:`medmtl.api`.

The library is imported inside the commands, so that ``--help`` and a mistyped option answer at once.
"""

from __future__ import annotations

from collections.abc import Callable

from medmtl.commands.catalogue import kinds
from medmtl.commands.cohort import check, plan
from medmtl.commands.results import evaluate, predict, report
from medmtl.commands.synthetic import demo, synth
from medmtl.commands.training import profile, train

# in the order in which ``--help`` lists them
COMMANDS: tuple[Callable[..., None], ...] = (
    demo,
    synth,
    check,
    plan,
    train,
    profile,
    evaluate,
    predict,
    report,
    kinds,
)
