"""Data against a pydantic model; every fault in the user's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from medmtl.errors import ConfigError
from medmtl.spelling import did_you_mean

Place = tuple[str | int, ...]
"""Keys from the top of the file, or of a model's data, to a value."""

Lines = Mapping[Place, int]
"""Path of keys -> line of the file where the key stands, or 0 where it came from elsewhere."""

NAME = re.compile(r"[a-z][a-z0-9_]*")  # it becomes a part of the names of files, columns and tensors

NAME_PATTERN = rf"^{NAME.pattern}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that the user gives: of a task, a label, a finding or a group of tasks."""

M = TypeVar("M", bound=BaseModel)

SHOWN = 40  # characters of a value in a message
INTEGER = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
# keys that people bring from other programs, and what they are here
ELSEWHERE = {
    "epochs": "here it is training.steps or training.minutes",
    "max_epochs": "here it is training.steps or training.minutes",
    "num_epochs": "here it is training.steps or training.minutes",
    "batch_size": "here it is plan.batch",
    "patch": "here it is plan.shape",
    "patch_size": "here it is plan.shape",
    "roi_size": "here it is plan.shape",
    "learning_rate": "here it is training.lr",
    "num_workers": "here it is plan.workers",
}
NUMBER_FAULTS = ("int_", "float_", "bool_", "greater_than", "less_than", "finite_number")
# pydantic's words where they speak of Python
PLAIN = {
    "dict_type": "keys and values are expected",
    "model_type": "keys and values are expected",
    "model_attributes_type": "keys and values are expected",
    "tuple_type": "a list is expected",
    "list_type": "a list is expected",
    "string_type": "text (in quotes) is expected",
    "path_type": "a path is expected",
    "int_type": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number such as 1e-3 is expected",
    "float_parsing": "a number such as 1e-3 is expected",
    "bool_type": "true or false is expected",
    "bool_parsing": "true or false is expected",
}
# how a value looks of which keys, or entries, are expected
EXAMPLES = {
    "tasks": "{tumour: {kind: segmentation, ...}}",
    "channels": "{t1: image_t1}",
    "labels": "{core: 1, oedema: 2}",
    "regions": "{whole: [core, oedema]}",
    "init": "{run: runs/other}",
    "flips": "[x, y]",
}
HAVE_PARTS = ("dict_type", "model_type", "model_attributes_type", "tuple_type", "list_type")


@dataclass(frozen=True)
class Rule:
    """Metadata of a field: the rule of the catalogue that a bad or missing value breaks, where it is a special one.

    Attributes:
        code: its id; empty for the usual one.
        fix: what to do where the key is missing.
    """

    code: str
    fix: str = ""


class Faults:
    """Faults that are told together. Each key is named once: what else is wrong there may follow from the first.

    Args:
        lines: of the file.
    """

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._items: list[ConfigError] = []

    def add(self, place: Place, message: str, code: str, *, at: Place | None = None) -> None:
        """Keep a fault and go on.

        Args:
            place: of the key that is named; () names none.
            message: one sentence.
            code: id of the rule.
            at: where the line is looked up, if not at the key.
        """
        line = line_of(place if at is None else at, self.lines)
        self._keep(ConfigError(message, key=".".join(map(str, place)) or None, line=line, code=code))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the error that the block raises, and go on after it."""
        try:
            yield
        except ConfigError as error:
            self._keep(error)

    def _keep(self, error: ConfigError) -> None:
        named = {fault.key for fault in self._items} - {None}
        self._items += [fault for fault in error.faults if fault.key not in named]

    def refuse(self) -> None:
        """Raise one error for all faults, if there are any.

        Raises:
            ConfigError: its ``faults`` are the faults.
        """
        if self._items:
            raise ConfigError.of(self._items)


def validated(model: type[M], data: Any, path: tuple[str, ...], lines: Lines) -> M:
    """Data as a record.

    A number, a truth value and a word are three things: ``"10"`` is no number, and 1e3 is no count.

    Args:
        model: what it must be.
        data: what was read.
        path: of keys, from the top of the file to the data.
        lines: of the file.

    Raises:
        ConfigError: naming every fault with its key, its line and the nearest valid key.
    """
    try:
        record = model.model_validate(data)
    except ValidationError as error:
        found = [(_place(data, item["loc"], item["type"]), dict(item)) for item in error.errors(include_url=False)]
    else:
        found = [
            (place, {"type": kind, "msg": "", "input": given}) for place, kind, given in _changed(data, record, ())
        ]
        if not found:
            return record
    places = [place for place, _ in found]
    # of the alternatives that a key has, the one that reached deepest is the one that was meant
    found = [(place, item) for place, item in found if not any(_inside(other, place) for other in places)]
    grouped = [(place, [item for _, item in items]) for place, items in groupby(found, key=lambda pair: pair[0])]
    raise ConfigError.of([_fault(model, place, items, path, lines) for place, items in grouped])


def _inside(place: Place, outer: Place) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _fault(
    model: type[BaseModel], place: Place, items: Sequence[Mapping[str, Any]], path: tuple[str, ...], lines: Lines
) -> ConfigError:
    key = ".".join(map(str, (*path, *place))) or None
    line = line_of((*path, *place), lines)
    kind = items[0]["type"]
    named = any(item["type"] in ("literal_error", "union_tag_invalid") for item in items)
    rule = _rule(model, place)
    if kind == "missing":
        code = rule.code if rule and rule.code else "B132"
        fix = f"; {rule.fix}" if rule and rule.fix else ""
        return ConfigError(f"this key is missing{fix}", key=key, line=line, code=code)
    if kind == "extra_forbidden":
        hint = _hint(str(place[-1]), _fields_at(model, place[:-1]))
        return ConfigError(f"unknown key; {hint}", key=key, line=line, code="B132")
    texts = [_plain(item) for item in items]
    text = " or ".join(map(_sentence, dict.fromkeys(texts)))
    if place and place[-1] in EXAMPLES and any(item["type"] in HAVE_PARTS for item in items):
        text += f", such as {EXAMPLES[str(place[-1])]}"
    if place[-2:-1] == ("labels",) and isinstance(items[0].get("input"), list):
        text += "; what has several values is one of the regions, such as {whole: [core, oedema]}"
    code = rule.code if rule and rule.code else "B137" if named else _usual_code(kind, (*path, *place))
    return ConfigError(f"{text}{_found(items[0].get('input'), kind)}", key=key, line=line, code=code)


def _plain(item: Mapping[str, Any]) -> str:
    if item.get("ctx", {}).get("pattern") == NAME_PATTERN:
        return "a name is a small letter and then small letters, digits and _, such as liver_2"
    if item["type"] == "union_tag_not_found":
        return f"a mapping with {item['ctx']['discriminator']} is expected"
    return PLAIN.get(item["type"]) or str(item["msg"])


def _sentence(text: str) -> str:
    text = text.removeprefix("Value error, ").replace(" after validation", "")
    return f"{text[0].lower()}{text[1:]}"


def _usual_code(kind: str, place: Place) -> str:
    if kind.startswith(NUMBER_FAULTS):
        return "B138"
    if place[:1] == ("tasks",):
        return "B141"
    return "B142" if kind == "value_error" else "B138"


def _hint(key: str, known: Sequence[str]) -> str:
    """What an unknown key may have meant."""
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    return did_you_mean(key, known) or f"known: {', '.join(known) or 'none'}"


def _found(value: Any, kind: str) -> str:
    """The value that was found; where its quotes, or that it has none, are the fault, that too."""
    if isinstance(value, str):
        if _is_quoted(value, kind):
            return f' (found the text "{value[:SHOWN]}"; write it without quotes)'
        return f" (found {value[:SHOWN]!r})"
    if value is not None and not isinstance(value, bool | int | float):
        return ""
    shown = json.dumps(value)[:SHOWN]
    if kind != "string_type" or value is None:
        return f" (found {shown})"
    if isinstance(value, bool | float):  # that may have been written as True, or as 1e3
        return f" (found {shown}; write it in quotes)"
    return f' (found the number {shown}; write "{shown}")'


def _is_quoted(text: str, kind: str) -> bool:
    """Whether a text would be what is expected, did it not stand in quotes."""
    if kind.startswith("bool_"):
        return text in ("true", "false")
    pattern = INTEGER if kind.startswith("int_") else NUMBER if kind.startswith("float_") else None
    return pattern is not None and pattern.fullmatch(text) is not None


def _changed(given: Any, taken: Any, place: Place) -> Iterator[tuple[Place, str, Any]]:
    """Places where a value became one of another kind on its way into the record, with the fault that this is."""
    if isinstance(given, Mapping) and isinstance(taken, BaseModel):
        for name, field in type(taken).model_fields.items():
            key = field.alias or name
            if key in given:
                yield from _changed(given[key], getattr(taken, name), (*place, key))
    elif isinstance(given, Mapping) and isinstance(taken, Mapping):
        for key in given.keys() & taken.keys():
            yield from _changed(given[key], taken[key], (*place, key))
    elif isinstance(given, list | tuple) and isinstance(taken, list | tuple):
        for index, (one, other) in enumerate(zip(given, taken, strict=False)):
            yield from _changed(one, other, (*place, index))
    elif isinstance(taken, bool):
        if not isinstance(given, bool):
            yield place, "bool_type", given
    elif isinstance(taken, int):
        if isinstance(given, bool) or not isinstance(given, int):
            yield place, "int_type", given
    elif isinstance(taken, float) and (isinstance(given, bool) or not isinstance(given, int | float)):
        yield place, "float_type", given


def _place(data: Any, location: Sequence[str | int], fault: str) -> Place:
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


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that a model knows at a place."""
    current: Any = model
    for part in place:
        field = _field(current, part)
        # a part that is no field is a key of a mapping: what that holds comes last
        current = field.annotation if field is not None else next(iter(get_args(current)[-1:]), None)
    current = next((item for item in (current, *get_args(current)) if hasattr(item, "model_fields")), None)
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]


def _field(model: Any, key: str | int) -> FieldInfo | None:
    fields: Mapping[str, FieldInfo] = getattr(model, "model_fields", {})
    return next((field for name, field in fields.items() if key == (field.alias or name)), None)


def _rule(model: type[BaseModel], place: Place) -> Rule | None:
    """The special rule of the key at a place, or of one around it."""
    current: Any = model
    found: Rule | None = None
    for part in place:
        field = _field(current, part)
        if field is None:
            break
        found = next((item for item in field.metadata if isinstance(item, Rule)), None)
        current = field.annotation
    return found


def line_of(place: Place, lines: Lines) -> int | None:
    """The line of a key, or of the nearest key around it; None where it stands in no file."""
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]] or None
    return None
