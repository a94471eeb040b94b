"""What the text of one cell says: a number, several of them, a word for "missing", or something no cell may hold."""

from __future__ import annotations

import math
import re
import unicodedata

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}([.,'\u2019 \u00a0\u202f][0-9]{3})+([.,][0-9]+)?")
_SEPARATORS = re.compile(r"[;|/,]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MISSING_WORDS = frozenset(
    ("?", "-", "--", "\u2013", "\u2014", ".", "n/a", "n.a.", "na", "#n/a", "none", "null", "missing", "unknown",
     "nan", "<na>", "nat")  # the last three are what pandas writes
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def number(text: str) -> float | None:
    """The value of a plain decimal number such as ``12.5`` or ``1e-3``; None for all else, also for NaN and Inf."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def is_localised_number(text: str) -> bool:
    """Whether it is a number with a decimal comma (``2,5``) or with its thousands apart (``1,234``, ``1 234``)."""
    return number(text) is None and bool(_DECIMAL_COMMA.fullmatch(text) or _GROUPED.fullmatch(text))


def values(text: str) -> list[str]:
    """The parts of a cell that may hold several, at ``;``, ``|``, ``/`` or a comma, or else at blanks."""
    parts = [part.strip() for part in _SEPARATORS.split(text)]
    return [part for part in parts if part] if len(parts) > 1 else text.split()


def is_missing_word(text: str, *, for_number: bool = False) -> bool:
    """Whether people or programs write this where they have no value, such as ``?``, ``n/a`` or ``<NA>``.

    Args:
        text: of the cell.
        for_number: whether the cell is to hold a number; ``nan`` is then one that is not finite, a fault of its own.
    """
    word = text.strip().casefold()
    return word in _MISSING_WORDS and not (for_number and word == "nan")


def number_fault(text: str, meaning: str) -> tuple[str, str]:
    """The rule that a cell breaks which :func:`number` refuses, and what to do.

    Args:
        text: of the cell.
        meaning: of an empty cell, such as ``the value is missing``.
    """
    parts = values(text)
    if is_localised_number(text.strip()):
        return "B006", "write a decimal point, and nothing between thousands"
    if is_missing_word(text, for_number=True):
        return "B116", f"list it in cohort.missing if it means that {meaning}, or correct it"
    if len(parts) > 1 and all(number(part) is not None for part in parts):
        return "B118", "give the case one value"
    return "B119", "correct it, or list it in cohort.missing"


def control_character(text: str) -> str | None:
    """The first control character or line break, or None."""
    found = None if text.isprintable() else _CONTROLS.search(text)
    return found.group() if found else None


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run it: it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return.

    A number is none, nor is what holds nothing but ``+`` and ``-``, such as a receptor's status.
    """
    return text.startswith(FORMULA_STARTS) and NUMBER.fullmatch(text) is None and text.strip("+-") != ""


def folded(name: str) -> str:
    """What equal-looking names have in common: no blanks around, no case, composed characters (NFC)."""
    if name.isascii():
        return name.strip().casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())
