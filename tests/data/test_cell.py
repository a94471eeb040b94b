from __future__ import annotations

import pytest

from medmtl.data import cell


@pytest.mark.parametrize(("text", "value"), [("12", 12.0), ("-1.5e-3", -0.0015), (".5", 0.5), ("+7.", 7.0)])
def test_a_plain_number(text: str, value: float) -> None:
    assert cell.number(text) == value
    assert not cell.is_localised_number(text)
    assert not cell.is_formula(text)


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1_0", " 1", "٣", "0x1", "", "1,5"])
def test_nothing_else_is_a_number(text: str) -> None:
    assert cell.number(text) is None


@pytest.mark.parametrize(
    ("text", "localised"),
    [
        ("2,5", True),
        ("1,234", True),
        ("1.234,5", True),
        ("1 234", True),
        ("1,23,4", False),
        ("1;2", False),
        ("a,b", False),
    ],
)
def test_numbers_of_other_countries(text: str, localised: bool) -> None:
    assert cell.is_localised_number(text) == localised


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a;b", ["a", "b"]),
        ("a | b /c", ["a", "b", "c"]),
        ("1, 2", ["1", "2"]),
        ("1 2", ["1", "2"]),
        (";a", ["a"]),
        ("", []),
    ],
)
def test_several_values(text: str, parts: list[str]) -> None:
    assert cell.values(text) == parts


@pytest.mark.parametrize(("text", "sign"), [("a\tb", "\t"), ("\x9f", "\x9f"), ("\u2029", "\u2029")])
def test_control_characters(text: str, sign: str) -> None:
    assert cell.control_character(text) == sign


@pytest.mark.parametrize("text", ["", "a b", "é🧠", "\u200f\u05e9", "a\u00a0b", "\ufeff"])
def test_other_text_has_none(text: str) -> None:
    assert cell.control_character(text) is None


def test_words_and_formulas() -> None:
    assert all(cell.is_missing_word(word) for word in ("?", "N/A", " na ", "–", "n.a."))
    assert not any(cell.is_missing_word(word) for word in ("", "0", "low", "nano"))
    assert all(cell.is_formula(text) for text in ("=1+1", "+a", "-a", "@x", "-1-1", "=", "+ "))
    assert not any(cell.is_formula(text) for text in ("-1", "a=b", "", "-", "+", "++"))


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "NaT"])
def test_what_pandas_writes_for_a_missing_value(word: str) -> None:
    assert cell.is_missing_word(word)
    assert cell.is_missing_word(word, for_number=True) == (word.casefold() != "nan")


def test_folding_is_for_comparison_only() -> None:
    assert cell.folded(" CAF\u00c9 ") == cell.folded("cafe\u0301")
    assert cell.folded("straße") == "strasse"


@pytest.mark.parametrize(
    ("text", "code", "fix"),
    [
        ("2,5", "B006", "write a decimal point"),
        ("n/a", "B116", "list it in cohort.missing if it means that nobody looked, or correct it"),
        ("3 4", "B118", "give the case one value"),
        ("nan", "B119", "correct it"),
    ],
)
def test_what_is_wrong_with_a_number(text: str, code: str, fix: str) -> None:
    found, advice = cell.number_fault(text, "nobody looked")
    assert found == code and advice.startswith(fix)
