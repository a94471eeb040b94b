from __future__ import annotations

from typing import Any

import pytest

from medmtl.data.formats import strict_yaml
from medmtl.errors import ConfigError


@pytest.mark.covers("B134")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("3.", 3.0),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("'012'", "012"),
        ("'null'", "null"),
        ("a$b/c", "a$b/c"),
        ("me@here", "me@here"),
        ("[x, 1, 1.5]", ["x", 1, 1.5]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("=", "="),
    ],
)
def test_a_scalar_has_one_reading(text: str, value: Any) -> None:
    found = strict_yaml.parse_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_an_empty_word_is_empty_text_and_an_empty_value_is_null() -> None:
    assert strict_yaml.parse_scalar("") == ""
    assert strict_yaml.parse("a:\n").data == {"a": None}


@pytest.mark.covers("B130", "B131", "B133", "B134", "B135", "B136", "B138", "B144")
@pytest.mark.parametrize(
    ("text", "words", "line", "code"),
    [
        ("", "empty", None, "B130"),
        ("# nothing\n", "empty", None, "B130"),
        ("a: [1, 2\n", "syntax", 2, "B131"),
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice, first in line 1", 3, "B133"),
        ("x:\n  a: 1\n  a: 2\n", "'a' stands twice, first in line 2", 3, "B133"),
        ("a: 012\n", "two ways", 1, "B134"),
        ("a: 12:30:45\n", "two ways", 1, "B134"),
        ("a: 0x1F\n", "two ways", 1, "B134"),
        ("a: 1_000\n", "two ways", 1, "B134"),
        ("a: .nan\n", "finite", 1, "B138"),
        ("a: -.inf\n", "finite", 1, "B138"),
        ("a: 1e999\n", "finite", 1, "B138"),
        (f"a: {'9' * 5000}\n", "5000 digits", 1, "B138"),
        ("a: 1\nb: &x 2\n", "anchors", 2, "B135"),
        ("b: *x\n", "anchors", 1, "B135"),
        ("a: !!python/object/apply:os.system [id]\n", "tag", 1, "B135"),
        ("a: !!python/name:os.system x\n", "tag", 1, "B135"),
        ("a: !!binary aGk=\n", "tag", 1, "B135"),
        ("a: !mine 1\n", "tag", 1, "B135"),
        ("!!python/name:os.system x: 1\n", "tag", 1, "B135"),
        ("a: !!set {x}\n", "tag", 1, "B135"),
        ("? [a, b]\n: 1\n", "plain text", 1, "B131"),
        ("a: $expr\n", "expressions", 1, "B136"),
        ("a: ${HOME}\n", "expressions", 1, "B136"),
        ("a: x$(id)\n", "expressions", 1, "B136"),
        ("a: '@other'\n", "expressions", 1, "B136"),
        ("a: '{{ x }}'\n", "expressions", 1, "B136"),
        ("a: '{% if x %}'\n", "expressions", 1, "B136"),
        ("_target_: os.system\n", "expressions", 1, "B136"),
        ("$a: 1\n", "expressions", 1, "B136"),
        ("a: 1\n---\nb: 2\n", "syntax", 2, "B131"),
        ("a: \x00\n", "syntax", 1, "B131"),
        ("[" * 65 + "]" * 65, "levels", 1, "B135"),
        ("[" + "1," * 10_001 + "]", "nodes", 1, "B135"),
        ("a: " + "x" * (1 << 20), "larger", None, "B130"),
        ("a: 1\n\tb: 2\n", "YAML syntax: a tab at column 1; indent with spaces$", 2, "B131"),
        ('a: "\\ud800"\n', "lone surrogate", 1, "B131"),
        ("k" * 201 + ": 1\n", "key of 201 characters", 1, "B135"),
        ("b:\n  hf_token: 0x12\n", "b.hf_token: a key of this name holds a secret", 2, "B144"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_line(text: str, words: str, line: int | None, code: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        strict_yaml.parse(text)
    assert (caught.value.code, caught.value.line) == (code, line)


def test_every_key_knows_its_line() -> None:
    document = strict_yaml.parse("a: 1\nb:\n  c: 2\n  d: [x,\n    y]\n")
    assert document.lines[("a",)] == 1
    assert document.lines[("b", "c")] == 3
    assert document.lines[("b", "d", 1)] == 5


def test_what_is_written_reads_back() -> None:
    texts = [
        "1e3",
        "012",
        "0o7",
        "no",
        "12:30:45",
        "1_000",
        "null",
        "",
        "true",
        "a: b",
        "# x",
        "é",
        "x\ny",
        ".inf",
        "-",
    ]
    data = {"texts": texts, "1e3": 1e-05, "deep": {"a": [1, 2.5, None, True]}}
    assert strict_yaml.parse(strict_yaml.dump(data)).data == data


def test_the_written_keys_keep_their_order() -> None:
    assert strict_yaml.dump({"b": 1, "a": "plain"}) == "b: 1\na: plain\n"
