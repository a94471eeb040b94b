"""Write docs/kinds.md and docs/configuration.md from the code; ``make docs`` runs it, and a test holds both to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmtl import api
from medmtl.catalogue import describe_sections

BLOCKS = {"tasks": "tasks.NAME", "network": "network", "sharing": "sharing", "weighting": "weighting"}
KINDS = """# Kinds and their options

Made by `make docs` from the docstrings; `medmtl kinds` shows the same. An option without a default must be given."""
CONFIGURATION = """# The configuration, block by block

Made by `make docs` from the docstrings. What a task, a network, a sharing or a weighting may hold is in
[Kinds](kinds.md). A key without a default must be given. Under `--set` a key is written with dots, such as
`--set training.steps=500`. A key of `plan` that is `null` is planned, but for `nnunet`: `medmtl plan` shows the value
with its reason. Beside these blocks a file has `schema: 1`. It may have `primary: TASK`, what a comparison is about,
and `cohorts`, a list of blocks like `cohort` with a `name` each, in place of `cohort`
([several cohorts](cohorts.md))."""


def pages() -> dict[str, str]:
    """File name -> the page as Markdown."""
    parts = [KINDS]
    for family, entries in api.kinds().items():
        parts.append(f"## {family.capitalize()}\n\nUnder `{BLOCKS[family]}`.")
        parts += [_section("###", entry) for entry in entries]
    blocks = [CONFIGURATION, *(_section("##", entry) for entry in describe_sections())]
    return {"kinds.md": _joined(parts), "configuration.md": _joined(blocks)}


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _section(level: str, entry: dict[str, Any]) -> str:
    text = f"{level} `{entry['name']}`\n\n{entry['summary']}"
    if not entry["options"]:
        return text
    rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for option in entry["options"]:
        default = "" if option["required"] else f"`{json.dumps(option['default'])}`"
        cells = (f"`{option['name']}`", f"`{option['type']}`", default, option["help"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return text + "\n\n" + "\n".join(rows)


if __name__ == "__main__":
    for name, text in pages().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
