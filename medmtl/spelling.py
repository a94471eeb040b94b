"""Names that are written almost as a known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like ``name``, or None if none is close; blanks and case count least."""
    known = list(known)
    plain = str(name).strip().casefold()
    same = [other for other in known if other.strip().casefold() == plain]
    close = same or difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str], before: str = "") -> str:
    """``before`` and the question, such as ``did you mean 'heart'?``; an empty text if no known name is close."""
    guess = nearest(name, known)
    return f"{before}did you mean {guess!r}?" if guess else ""
