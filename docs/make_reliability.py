"""Write docs/reliability.md from what the tests recorded; ``make reliability`` runs both.

    python -m docs.make_reliability RECORD.json...

A record is what ``pytest --reliability RECORD.json`` wrote; of several, a later one replaces the results of a test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.reliability.catalogue import NOT_SHOWN, RULES, Rule

PAGE = Path(__file__).with_name("reliability.md")
INTRODUCTION = """# What it withstands

Made by `make reliability` from the tests themselves: each row is a rule, how it must end, and the tests that show it,
with their result and time. *reject*: refused before any training. *warn*: told, and the work goes on. *fixed*:
repaired, and said so. *holds*: whatever happens, this stays true. A finding or an error names its rule, as in `[B051]`.

{counts}"""
NOT_SHOWN_INTRODUCTION = """## Not shown

Rules that no test shows, and why. Power cuts, many machines and GPUs are beyond what one plain machine can show."""
RANK = ("passed", "skipped", "failed")


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page as Markdown.

    Args:
        records: ``id``, ``test`` (pytest's node id), ``outcome``, ``seconds`` and ``reason`` each.
    """
    results = _results(records)
    shown = [rule for rule in RULES.values() if rule.id not in NOT_SHOWN]
    passed = sum(any(r["outcome"] == "passed" for r in results.get(rule.id, {}).values()) for rule in shown)
    counts = f"Of {len(RULES)} rules, {passed} are shown by a test that passed, and {len(NOT_SHOWN)} are not shown."
    parts = [INTRODUCTION.format(counts=counts)]
    for section in dict.fromkeys(rule.section for rule in shown):
        rows = ["| rule | what | class | test | result | time |", "|---|---|---|---|---|---|"]
        for rule in shown:
            if rule.section == section:
                rows += _rows(rule, results.get(rule.id, {}))
        parts.append(f"## {section}\n\n" + "\n".join(rows))
    rows = ["| rule | why |", "|---|---|"]
    rows += [f"| {rule.id}: {rule.title} | {NOT_SHOWN[rule.id]} |" for rule in RULES.values() if rule.id in NOT_SHOWN]
    parts.append(NOT_SHOWN_INTRODUCTION + "\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _results(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rule -> test function -> what its cases came to together."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    latest = {(record["id"], record["test"]): record for record in records}
    for (rule, test), record in sorted(latest.items()):
        name = test.partition("[")[0].removeprefix("tests/")
        entry = results.setdefault(rule, {}).setdefault(
            name, {"outcome": "passed", "seconds": 0.0, "cases": 0, "reason": ""}
        )
        entry["outcome"] = max(entry["outcome"], record["outcome"], key=RANK.index)
        entry["seconds"] += record["seconds"]
        entry["cases"] += 1
        entry["reason"] = entry["reason"] or record["reason"]
    return results


def _rows(rule: Rule, tests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One row per rule; further tests stand in the same cells, line by line."""
    start = f"| {rule.id} | {rule.title} | {' or '.join(rule.classes)} |"
    if not tests:
        return [f"{start} no test yet | |  |"]
    cells: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name, entry in tests.items():
        cells[0].append(f"`{name}`")
        cases = f" ({entry['cases']} cases)" if entry["cases"] > 1 else ""
        reason = f": {entry['reason']}".replace("|", "/") if entry["outcome"] == "skipped" else ""
        cells[1].append(f"{entry['outcome']}{cases}{reason}")
        cells[2].append(f"{entry['seconds']:.1f} s")
    return [start + "".join(f" {'<br>'.join(cell)} |" for cell in cells)]


if __name__ == "__main__":
    found = [record for name in sys.argv[1:] for record in json.loads(Path(name).read_text(encoding="utf-8"))]
    PAGE.write_text(page(found), encoding="utf-8")
