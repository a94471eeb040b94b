"""The key ``cohorts``: several cohorts that are trained on as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.data.cell import folded
from medmtl.sections import CohortSection, NamedCohortSection
from medmtl.validation import Faults, Lines, validated

KEY = "cohorts"
LOCAL = ("table", "roots")  # paths of an entry


def entries(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries that are mappings, sound or not."""
    held = data.get(KEY)
    return [entry for entry in held if isinstance(entry, dict)] if isinstance(held, list) else []


def path_places(data: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[dict[str, Any], str]]:
    """Blocks with the keys under which they hold paths: those named ``block.key``, and those of the entries."""
    places: list[tuple[Any, str]] = [(data.get(block), name) for block, _, name in (key.partition(".") for key in keys)]
    places += [(entry, name) for entry in entries(data) for name in LOCAL]
    return [(section, name) for section, name in places if isinstance(section, dict) and section.get(name)]


def take_cohorts(data: dict[str, Any], faults: Faults) -> None:
    """Replace the entries by records. The first one also stands as ``cohort``: it says what all of them have in common.

    Args:
        data: of the file; changed.
        faults: gets every fault.
    """
    if data.get(KEY) is None:
        data.pop(KEY, None)
        return
    held, both = data[KEY], data.get("cohort") is not None
    data["cohort"], data[KEY] = CohortSection.model_construct(), ()
    if both:
        faults.add((KEY,), "cohort is given too; give one of the two", "B142")
    if not isinstance(held, list) or len(held) < 2:
        message = "a list of two cohorts or more is expected, each with a name and the keys of cohort"
        faults.add((KEY,), message, "B142")
        return
    found: dict[int, NamedCohortSection] = {}
    for number, entry in enumerate(held):
        with faults.kept():
            found[number] = validated(NamedCohortSection, entry, (KEY, str(number)), _numbered(faults.lines))
    for number, section in found.items():
        _check_fit(number, section, found, faults)
    if len(found) == len(held):
        data["cohort"], data[KEY] = found[0], tuple(found.values())


def _numbered(lines: Lines) -> Lines:
    """Lines whose places say the number of an entry as text."""
    return {tuple(str(part) if isinstance(part, int) else part for part in place): at for place, at in lines.items()}


def _check_fit(
    number: int, section: NamedCohortSection, found: Mapping[int, NamedCohortSection], faults: Faults
) -> None:
    """Its name is its own, and what the network sees is what it sees of the first."""
    first = found[min(found)]
    twins = [other for at, other in found.items() if at < number and folded(other.name) == folded(section.name)]
    key, message = "", ""
    if twins:
        key, message = "name", f"{section.name!r} is the name of another cohort; give each its own"
    elif (list(section.columns), section.optional) != (list(first.columns), first.optional):
        key = "channels"
        message = (
            f"not the channels of {first.name} ({', '.join(first.columns)}; optional: "
            f"{', '.join(first.optional) or 'none'}); give the same names in the same order, an optional one also to "
            "a cohort that always has it"
        )
    elif section.covariates != first.covariates:
        key, message = "covariates", f"not those of {first.name}; declare the same in every cohort"
    elif section.resample != first.resample:
        key, message = "resample", f"not that of {first.name}; say the same in every cohort"
    if key:
        faults.add((KEY, number, key), message, "B142")
