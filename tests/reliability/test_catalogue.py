"""Every rule has a test that names it, or a reason why not; the page says so."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.catalogue import NOT_SHOWN, RULES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
SOURCES = sorted((ROOT / "tests").rglob("test_*.py")) + sorted((ROOT / "tests").rglob("contract.py"))


def marks(path: Path) -> list[tuple[int, list[Any]]]:
    """Line and arguments of every ``pytest.mark.covers(...)`` of a file; None for what comes from a test's table."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return [
        (call.lineno, [arg.value if isinstance(arg, ast.Constant) else None for arg in call.args])
        for call in calls
        if ast.unparse(call.func) == "pytest.mark.covers"
    ]


MARKED = [(path, line, names) for path in SOURCES for line, names in marks(path)]


def test_marks_name_rules_of_the_catalogue_and_nothing_else() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, line, names in MARKED
        for name in names or ["no id"]
        if name is not None and name not in RULES
    ]
    assert wrong == [], "a mark takes ids of tests/reliability/catalogue.py"


def test_every_rule_has_a_test_or_a_reason() -> None:
    silent = re.findall(r"^\| (\w+) \|.*no test yet", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert silent == [], "mark a test and run make reliability, or say in NOT_SHOWN why there is none"


def test_the_exceptions_are_rules_and_say_why() -> None:
    assert NOT_SHOWN.keys() <= RULES.keys()
    assert all(len(reason) > 10 for reason in NOT_SHOWN.values())


def test_titles_are_short_and_fit_a_table() -> None:
    for rule in RULES.values():
        assert len(rule.title) <= 60 and not set(rule.title) & set("|<>[]`"), rule


def test_the_page_names_every_rule_once_and_shows_no_failure() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([BFP][0-9]+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(RULES.keys() - NOT_SHOWN.keys()), "run make reliability"
    assert sorted(re.findall(r"^\| ([BFP][0-9]+): ", text, re.MULTILINE)) == sorted(NOT_SHOWN), "run make reliability"
    assert "| failed" not in text


def test_the_page_names_tests_that_exist() -> None:
    known = {
        f"{path.relative_to(ROOT / 'tests').as_posix()}::{node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`([a-z0-9_/]+\.py::test_\w+)`", PAGE.read_text(encoding="utf-8")))
    assert named
    assert named <= known, "run make reliability"


def test_records_become_a_page() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reliability.py"))
    records = [
        {"id": "B051", "test": "tests/a/test_b.py::test_c[1]", "outcome": "passed", "seconds": 0.5, "reason": ""},
        {"id": "B051", "test": "tests/a/test_b.py::test_c[2]", "outcome": "passed", "seconds": 0.75, "reason": ""},
        {"id": "B052", "test": "tests/a/test_b.py::test_d", "outcome": "failed", "seconds": 2.0, "reason": ""},
        {"id": "B053", "test": "tests/a/test_b.py::test_e", "outcome": "skipped", "seconds": 0, "reason": "no | tmpfs"},
    ]
    lines = made["page"](records).splitlines()
    by_id = {line[2:6]: line for line in lines if re.match(r"\| [BFP]\d", line)}
    assert by_id["B051"].endswith("| reject | `a/test_b.py::test_c` | passed (2 cases) | 1.2 s |")
    assert by_id["B052"].endswith("| failed | 2.0 s |")
    assert by_id["B053"].endswith("| skipped: no / tmpfs | 0.0 s |")
    assert by_id["B054"].endswith("| no test yet | |  |")
    assert "power" in made["page"]([]) and by_id["B173"].startswith("| B173: ")


def test_of_two_results_of_one_test_the_later_one_counts() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reliability.py"))
    record = {"id": "P21", "test": "tests/x.py::test_y", "outcome": "passed", "seconds": 1.0, "reason": ""}
    page = made["page"]([record | {"outcome": "failed"}, record])
    assert page.count("`x.py::test_y`") == 1
    assert "failed" not in page


@pytest.mark.parametrize("rule", ["B051", "F02", "P21"])
def test_a_rule_knows_its_section_and_class(rule: str) -> None:
    assert RULES[rule].section
    assert set(RULES[rule].classes) <= {"reject", "warn", "fixed", "holds"}
