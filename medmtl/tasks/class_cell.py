"""What a cell says that holds one of a list of classes."""

from __future__ import annotations

from collections.abc import Sequence

from medmtl.data.cell import is_missing_word, number, values
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import CellError


def read_class(cell: str | None, classes: Sequence[str], column: str) -> str | None:
    """The class in a cell, exactly as declared; None for an empty cell.

    Raises:
        CellError: B113 for another spelling of a class that is a number, B116 for a word that means "missing", B118
            for several classes, B112 for any other text.
    """
    if cell is None or cell in classes:
        return cell
    code, fix = _fault(cell, classes)
    raise CellError(code, column=column, found=cell, expected=f"one of {', '.join(classes)}", fix=fix)


def _fault(cell: str, classes: Sequence[str]) -> tuple[str, str]:
    """Which rule a cell breaks that holds no class, and what to do."""
    value, parts = number(cell.strip()), values(cell)
    twin = next((name for name in classes if value is not None and number(name) == value), None)
    if twin is not None and twin != cell.strip():
        return "B113", f"write {twin!r} in every row; classes are texts and must match exactly"
    if is_missing_word(cell):
        return "B116", "list it in cohort.missing if it means that the case is not labelled, or declare the class"
    if len(parts) > 1 and set(parts) <= set(classes):
        return "B118", "give the case one class"
    hint = did_you_mean(cell, classes)
    return "B112", f"{hint} Classes must match exactly" if hint else "correct the cell or declare the class"


def refuse_absent(counts: Sequence[int], classes: Sequence[str], column: str) -> None:
    """Refuse classes without a case.

    Args:
        counts: cases per class.
        classes: their names.
        column: where they stand.

    Raises:
        CellError: B115.
    """
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if absent:
        found, fix = f"no case of {', '.join(absent)}", "drop the class or add cases"
        raise CellError("B115", column=column, found=found, expected="cases of every class", fix=fix)


def refuse_doubled(classes: Sequence[str], key: str = "classes") -> None:
    """Refuse classes that are empty or stand twice.

    Raises:
        ValueError: names the key and what stands twice.
    """
    doubled = sorted({name for name in classes if classes.count(name) > 1})
    if doubled or "" in classes:
        raise ValueError(f"{key} must differ and not be empty; found twice: {doubled or 'none'}")
