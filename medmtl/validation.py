"""Data against a pydantic model; every fault in the user's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from medmtl.errors import ConfigError
from medmtl.registry import nearest

Lines = Mapping[tuple[str | int, ...], int]
"""Path of keys -> line of the file where the key stands, or 0 where it came from elsewhere."""

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], data: Any, path: tuple[str, ...], lines: Lines) -> M:
    """Data as a record.

    Args:
        model: what it must be.
        data: what was read.
        path: of keys, from the top of the file to the data.
        lines: of the file.

    Raises:
        ConfigError: naming every fault with its key, its line and the nearest valid key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_fault(model, data, dict(item), path, lines) for item in error.errors(include_url=False)]
    raise faults[0] if len(faults) == 1 else ConfigError("; ".join(dict.fromkeys(map(str, faults))))


def _fault(
    model: type[BaseModel], data: Any, item: Mapping[str, Any], path: tuple[str, ...], lines: Lines
) -> ConfigError:
    place = _place(data, item["loc"], item["type"])
    key = ".".join(map(str, (*path, *place))) or None
    line = line_of((*path, *place), lines)
    if item["type"] == "missing":
        return ConfigError("this key is missing", key=key, line=line)
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, place[:-1])
        guess = nearest(str(place[-1]), known)
        hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known) or 'none'}"
        return ConfigError(f"unknown key; {hint}", key=key, line=line)
    text = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown = f" (found {str(given)[:40]!r})" if isinstance(given, str | int | float | bool) or given is None else ""
    return ConfigError(f"{text[0].lower()}{text[1:]}{shown}", key=key, line=line)


def _place(data: Any, location: Sequence[str | int], fault: str) -> tuple[str | int, ...]:
    """A fault's keys, without the names of alternatives that pydantic puts between them."""
    place: list[str | int] = []
    for index, part in enumerate(location):
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)):
            place.append(part)
            data = data[part]
        elif fault == "missing" and index == len(location) - 1:
            place.append(part)
    return tuple(place)


def _fields_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    current: Any = model
    for part in place:
        fields = getattr(current, "model_fields", {})
        current = fields[part].annotation if part in fields else None
    fields = getattr(current, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def line_of(place: tuple[str | int, ...], lines: Lines) -> int | None:
    """The line of a key, or of the nearest key around it; None where it stands in no file."""
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]] or None
    return None
