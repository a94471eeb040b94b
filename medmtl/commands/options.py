"""Arguments and options that several commands have, in one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress: beside the answer, only warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show details.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings and repairs count as faults; missing labels do not.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as training.lr=1e-3.")
]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of fold-K.")]
