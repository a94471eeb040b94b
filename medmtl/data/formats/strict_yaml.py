"""YAML as data only: one reading of every scalar, no tags, no anchors, no duplicate keys, no expressions.

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

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+|[0-9]+_[0-9_]+)")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")
_EXPRESSION = re.compile(r"\$|^@|\{\{|\{%")

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
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(f"the file is larger than {MAX_BYTES} bytes")
    try:
        _refuse_anchors(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at column {mark.column + 1}" if mark else ""
        raise ConfigError(f"YAML syntax: {error.problem}{place}", line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"YAML syntax: {str(error).splitlines()[0]}") from None
    if node is None:
        raise ConfigError("the file is empty")
    lines: dict[Path, int] = {}
    return Document(_value(node, (), lines), lines)


def parse_scalar(text: str) -> Any:
    """The value of one word typed on a command line, such as ``1e-3``, ``true`` or ``[x, y]``."""
    return "" if text == "" else parse(text).data


def _refuse_anchors(text: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError("anchors and aliases are not supported", line=line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise ConfigError(f"more than {MAX_NODES} nodes or {MAX_DEPTH} levels", line=line)


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        _expect_tag(node, "map", line)
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        _expect_tag(node, "seq", line)
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    return _scalar(node, line)


def _expect_tag(node: yaml.Node, name: str, line: int) -> None:
    if node.tag != f"tag:yaml.org,2002:{name}":
        raise ConfigError(f"the tag {node.tag!r} is not supported", line=line)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError("a key must be plain text", line=line)
        key = key_node.value
        if key in result:
            raise ConfigError(f"the key {key!r} stands twice, first in line {lines[(*path, key)]}", line=line)
        if key == "_target_" or _EXPRESSION.search(key):
            raise ConfigError(f"expressions are not supported (key {key!r})", line=line)
        lines[(*path, key)] = line
        result[key] = _value(value_node, (*path, key), lines)
    return result


def _scalar(node: yaml.Node, line: int) -> Any:
    text = node.value
    if node.style is None:
        standard = node.tag.startswith("tag:yaml.org,2002:")
        if not standard or node.tag.endswith(("python", "binary", "merge")):
            raise ConfigError(f"the tag {node.tag!r} is not supported", line=line)
        return _plain(text, line)
    if node.tag != "tag:yaml.org,2002:str":
        raise ConfigError(f"the tag {node.tag!r} is not supported", line=line)
    return _text(text, line)


def _plain(text: str, line: int) -> Any:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ConfigError(f"{text} is not a finite number", line=line)
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ConfigError(f"{text} is not a finite number", line=line)
    if _AMBIGUOUS.fullmatch(text):
        raise ConfigError(f"{text} can be read in two ways; quote it if it is text", line=line)
    return _text(text, line)


def _text(text: str, line: int) -> str:
    if _EXPRESSION.search(text):
        raise ConfigError(f"expressions are not supported ({text[:40]!r})", line=line)
    return text
