"""A plan for reading: what was decided, its value, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The content of ``plan.json`` as (planned, value, reason), in the order of reading.

    How channels are normalised is known once the training fold is prepared.
    """
    reasons = plan["reasons"]
    network = plan["network"]
    length = f"{plan['minutes']:g} minutes" if plan["steps"] is None else f"{plan['steps']} steps"
    rows: list[tuple[str, str]] = [
        ("spacing", " x ".join(f"{size:g}" for size in plan["preparation"]["spacing"]) + " mm"),
        ("view", plan["view"]),
        ("shape", _by(plan["shape"])),
        *([("padding", "0")] if "padding" in reasons else []),
        ("batch", str(plan["batch"])),
        *_case_view_rows(plan["case_view"], reasons),
        ("network", f"{len(network['channels'])} stages of {', '.join(map(str, network['channels']))} channels"),
        ("strides", ", ".join(_by(stride) for stride in network["strides"])),
        ("device", plan["device"]),
        ("precision", plan["precision"]),
        ("threads", str(plan["threads"])),
        ("workers", str(plan["workers"])),
        ("length", length),
        ("memory", f"{plan['memory_bytes'] / 1e9:.2f} GB"),
        ("disk", f"{plan['disk_bytes'] / 1e9:.2f} GB"),
        ("time", "-" if plan["seconds"] is None else _duration(plan["seconds"])),
    ]
    rows += [
        (f"normalisation.{channel}", intensity["kind"])
        for channel, intensity in zip(plan["preparation"]["channels"], plan["intensities"], strict=False)
    ]
    return [(name, value, reasons.get(name, "")) for name, value in rows]


def _duration(seconds: float) -> str:
    """With the two digits that a rough prediction has; from two hours on in hours."""
    value, unit = (seconds / 60, "minutes") if seconds < 2 * 3600 else (seconds / 3600, "hours")
    return f"{float(f'{value:.2g}'):g} {unit}"


def _case_view_rows(view: Mapping[str, Any] | None, reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """How case tasks see their cases, where that is another view."""
    if view is None:
        return []
    spacing = " x ".join(f"{size:g}" for size in view["preparation"]["spacing"])
    tiles = f"{view['tiles']} tiles of " if view["tiles"] > 1 else ""
    return [
        ("case_view", f"{view['kind']}, {'shared' if view['share'] else 'own'} encoder, {view['batch']} a step"),
        ("case_view.shape", f"{tiles}{_by(view['shape'])} at {spacing} mm"),
        *([("case_view.lesions", "")] if "case_view.lesions" in reasons else []),
    ]


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
