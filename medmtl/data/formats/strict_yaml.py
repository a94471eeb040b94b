"""YAML as data only: one reading of every scalar, no tags, no anchors, no duplicate keys, no expressions.

What :func:`dump` writes, :func:`parse` reads back as it was.

Scalars follow YAML 1.2's core schema, which is what people expect: ``1e-4`` is a number, ``no`` and ``on`` are words,
only ``true`` and ``false`` are booleans. What PyYAML would read in a surprising way (``012``, ``12:30:45``) is refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from medmtl.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 64
MAX_DIGITS = 300  # of a number; Python's own limit would be an error of another kind
MAX_KEY = 200  # characters

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+|[0-9]+_[0-9_]+)")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")
# a dollar inside a word stays legal: folders are called so
_EXPRESSION = re.compile(r"^[$@]|\$[({]|\{\{|\{%")
_SECRET = re.compile(r"(.*[_-])?(token|passw(or)?d|secret|api[_-]?key|credential)s?", re.IGNORECASE)
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value")}

Path = tuple[str | int, ...]


class Document:
    """A parsed file.

    Attributes:
        data: dicts, lists, text, numbers, booleans and None.
        lines: path of keys -> 1-based line where that key stands.
    """

    def __init__(self, data: Any, lines: dict[Path, int]) -> None:
        self.data = data
        self.lines = lines


def parse(text: str) -> Document:
    """Parse one YAML document.

    Raises:
        ConfigError: on any syntax error, tag, anchor, duplicate key, expression or ambiguous scalar, with its line.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError(f"the text is larger than {MAX_BYTES} bytes", code="B130")
    try:
        _refuse_anchors(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at column {mark.column + 1}" if mark else ""
        tab = "'\\t'" in str(error.problem)
        problem = f"a tab{place}; indent with spaces" if tab else f"{error.problem}{place}"
        raise ConfigError(f"YAML syntax: {problem}", line=mark.line + 1 if mark else None, code="B131") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        words = f"YAML syntax: the character U+{ord(text[error.position]):04X} at column {column} is not allowed"
        raise ConfigError(words, line=line, code="B131") from None
    if node is None:
        raise ConfigError("the file is empty", code="B130")
    lines: dict[Path, int] = {}
    return Document(_value(node, (), lines), lines)


def refuse_secret(path: Path, line: int | None = None) -> None:
    """Refuse a key that by its name holds a secret: the configuration is copied into every run.

    Args:
        path: keys down to it.
        line: where it stands.

    Raises:
        ConfigError: it is one; the value is neither read nor shown.
    """
    if any(isinstance(key, str) and _SECRET.fullmatch(key) for key in path):
        raise ConfigError(
            "a key of this name holds a secret, which medmtl needs nowhere and would copy into every run; take it out",
            key=_dotted(path),
            line=line,
            code="B144",
        )


def parse_scalar(text: str) -> Any:
    """The value of one word typed on a command line, such as ``1e-3``, ``true`` or ``[x, y]``."""
    return "" if text == "" else parse(text).data


def dump(data: Any) -> str:
    """Data as YAML, block style, keys in their order."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True)


class _Writer(yaml.SafeDumper):
    """Quotes every text that :func:`parse` would take for something else; PyYAML knows only its own reading."""


def _write_text(writer: _Writer, text: str) -> yaml.ScalarNode:
    try:
        same = _plain(text, 0) == text
    except ConfigError:
        same = False
    return writer.represent_scalar(_TAG + "str", text, style=None if same else '"')


_Writer.add_representer(str, _write_text)


def _refuse_anchors(text: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        assert event.start_mark is not None  # only events made by hand have none
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError("anchors and aliases are not supported; write the value out", line=line, code="B135")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise ConfigError(f"more than {MAX_NODES} nodes or {MAX_DEPTH} levels", line=line, code="B135")


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        _expect_tag(node, "map", line)
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        _expect_tag(node, "seq", line)
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)  # there is no fourth kind
    try:
        return _scalar(node, line)
    except ConfigError as error:
        raise ConfigError(error.sentence, key=_dotted(path), line=line, code=error.code) from None


def _expect_tag(node: yaml.Node, name: str, line: int) -> None:
    if node.tag != _TAG + name:
        raise _tag_error(node.tag, line)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError("a key must be plain text", line=line, code="B131")
        if "python" in key_node.tag or not key_node.tag.startswith(_TAG):
            raise _tag_error(key_node.tag, line)
        key = key_node.value
        _check_key(key, (*path, key), line)
        if key in result:
            first, dotted = lines[(*path, key)], _dotted((*path, key))
            message = f"the key {key!r} stands twice, first in line {first}; leave one"
            raise ConfigError(message, key=dotted, line=line, code="B133")
        lines[(*path, key)] = line
        result[key] = _value(value_node, (*path, key), lines)
    return result


def _dotted(path: Path) -> str | None:
    return ".".join(map(str, path)) or None


def _check_key(key: str, path: Path, line: int) -> None:
    if len(key) > MAX_KEY:
        raise ConfigError(f"a key of {len(key)} characters", line=line, code="B135")
    if key == "_target_" or _EXPRESSION.search(key):
        raise ConfigError(f"expressions are not supported (key {key!r}); write the value", line=line, code="B136")
    refuse_secret(path, line)
    _text(key, line)


def _tag_error(tag: str, line: int) -> ConfigError:
    return ConfigError(f"the tag {tag[:60]!r} is not supported; write plain data", line=line, code="B135")


def _scalar(node: yaml.ScalarNode, line: int) -> Any:
    plain = node.style is None
    if node.tag not in (_PLAIN_TAGS if plain else {_TAG + "str"}):
        raise _tag_error(node.tag, line)
    return _plain(node.value, line) if plain else _text(node.value, line)


def _plain(text: str, line: int) -> Any:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) > MAX_DIGITS and (_INT.fullmatch(text) or _FLOAT.fullmatch(text)):
        raise ConfigError(f"a number of {len(text)} digits", line=line, code="B138")
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ConfigError(f"{text} is not a finite number", line=line, code="B138")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ConfigError(f"{text} is not a finite number", line=line, code="B138")
    if _AMBIGUOUS.fullmatch(text):
        raise ConfigError(f"{text[:40]} can be read in two ways; quote it if it is text", line=line, code="B134")
    return _text(text, line)


def _text(text: str, line: int) -> str:
    if _EXPRESSION.search(text):
        raise ConfigError(f"expressions are not supported ({text[:40]!r}); write the value", line=line, code="B136")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError("half of a character (a lone surrogate) is no text", line=line, code="B131")
    return text
