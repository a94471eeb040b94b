"""The words of the command line: what is refused before a command runs, and in which words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import typer
from typer.core import TyperCommand

from medmtl.disk import refuse_long
from medmtl.errors import InputError
from medmtl.files import is_special

MOST_DIGITS = 9  # of a fold's number

_EMPTY = re.compile(r"--[a-z-]+=")


class Command(TyperCommand):
    """A command whose options are given once each, and whose option values are not the names of options.

    The parser itself lets the last of two win, and takes ``--out --resume`` for a folder called ``--resume``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and refuse what the parser would guess.

        Raises:
            InputError: an option is given twice, or its value is missing.
        """
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        for param, count in Counter(order).items():
            if param.param_type_name != "option" or getattr(param, "is_flag", False):
                continue
            name = param.opts[0]
            if count > 1 and not getattr(param, "multiple", False):
                raise InputError(f"{name} is given {count} times; give it once", code="B163")
            given = values.get(param.name or "")
            for value in given if isinstance(given, list) else [given]:
                if isinstance(value, str) and value.startswith("--"):
                    raise InputError(f"{name} has no value, only {value!r} behind it; give one", code="B163")
        return super().parse_args(ctx, args)


def check_words(words: Sequence[str]) -> None:
    """Refuse words that no command has a use for.

    Raises:
        InputError: one is empty, as of a shell variable that is not set.
    """
    for before, word in zip(("medmtl", *words), words, strict=False):
        if word == "" or _EMPTY.fullmatch(word):
            place = f"after {before!r}" if word == "" else f"in {word!r}"
            raise InputError(f"there is an empty argument {place}; is a variable of your shell unset?", code="B164")


def check_place(file: Path | None, option: str) -> None:
    """Refuse a place for a file before the work whose answer is to lie there.

    Raises:
        InputError: its name is too long, it is a folder, a link, a pipe or a device, or its folder does not exist.
    """
    if file is None:
        return
    refuse_long(file)
    if file.is_dir():
        raise InputError(f"{option} {file} is a folder; give a file's name", code="B164")
    if is_special(file):
        # also standard output, where the answer in words goes; replaced as a file is, a device would be gone
        raise InputError(f"{option} {file} is a link, a pipe or a device; give the name of a plain file", code="B164")
    if not file.absolute().parent.is_dir():
        raise InputError(f"{option} {file} is in a folder that does not exist; make it first", code="B164")


def named_values(texts: Sequence[str], option: str) -> dict[str, str]:
    """What was typed as ``NAME=VALUE``, an option that may be given several times.

    Raises:
        InputError: one has no name or no equals sign, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputError(f"{option} wants NAME=VALUE, found {text!r}", code="B164")
        if name in found:
            raise InputError(f"{option} gives {name} twice; give it once", code="B163")
        found[name] = value
    return found


def fold_of(text: str) -> int | Literal["all", "none"]:
    """The value of ``--fold``.

    Raises:
        InputError: it is no number, ``all`` or ``none``.
    """
    if text == "all":
        return "all"
    if text == "none":
        return "none"
    # Python makes no number of more digits than some thousands
    if not text.isascii() or not text.isdecimal() or len(text) > MOST_DIGITS:
        raise InputError(f"--fold wants a number, all or none, found {text[:40]!r}", code="B164")
    return int(text)


def in_words(error: typer.TyperException) -> str:
    """What the parser refused, as one sentence with its id."""
    # typer hands on the words of its validator
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    message = re.sub(r"Input should be a valid integer.*", "a whole number is expected", message)
    code = "B164" if message.startswith("Invalid value") else "B163"
    option = getattr(error, "option_name", "")
    if option.startswith("-") and not option.startswith("--"):
        message += "; a file whose name begins with - is given as ./-NAME"
    context = getattr(error, "ctx", None)
    return f"[{code}] {message}; see {context.command_path if context else 'medmtl'} --help"
