"""Write docs/kinds.md from the kinds themselves; ``make docs`` runs it, and a test holds the page to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medmtl import api

PAGE = Path(__file__).with_name("kinds.md")
BLOCKS = {"tasks": "tasks.NAME", "network": "network", "sharing": "sharing", "weighting": "weighting"}
INTRODUCTION = """# Kinds and their options

Made by `make docs` from the docstrings; `medmtl kinds` shows the same. An option without a default must be given."""


def page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    for family, entries in api.kinds().items():
        parts.append(f"## {family.capitalize()}\n\nUnder `{BLOCKS[family]}`.")
        parts += [_kind(entry) for entry in entries]
    return "\n\n".join(parts) + "\n"


def _kind(entry: dict[str, Any]) -> str:
    text = f"### `{entry['name']}`\n\n{entry['summary']}"
    if not entry["options"]:
        return text
    rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for option in entry["options"]:
        default = "" if option["required"] else f"`{json.dumps(option['default'])}`"
        cells = (f"`{option['name']}`", f"`{option['type']}`", default, option["help"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return text + "\n\n" + "\n".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
