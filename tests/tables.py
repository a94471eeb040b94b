"""Cohort tables that a test changes, and tables of predictions that it reads."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite(table: Path, change: Callable[[int, dict[str, str]], Any]) -> None:
    """Write a table again after a change of each row: made in place, or another row as the answer."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = [change(number, row) or row for number, row in enumerate(rows)]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def predicted(table: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of predictions by their case."""
    with table.open(newline="", encoding="utf-8") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}
