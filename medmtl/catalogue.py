"""Every kind with its options, read from the kinds themselves."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from medmtl import networks, sections, sharing, tasks, weighting
from medmtl.registry import Registry

BLOCKS: dict[str, type[sections.Section]] = {
    "cohort": sections.CohortSection,
    "split": sections.SplitSection,
    "training": sections.TrainingSection,
    "training.heads.TASK": sections.HeadSection,
    "training.tasks.TASK": sections.TimesSection,
    "augmentation": sections.AugmentationSection,
    "views": sections.ViewsSection,
    "plan": sections.PlanSection,
    "inference": sections.InferenceSection,
    "cache": sections.CacheSection,
    "init": sections.InitSection,
}


def describe_kinds() -> dict[str, list[dict[str, Any]]]:
    """Family -> its kinds: ``name``, ``summary`` and ``options``.

    An option has ``name``, ``type``, ``default``, ``required`` and ``help``, its sentence in the ``Attributes`` of the
    docstring.
    """
    families: dict[str, Registry[Any]] = {
        "tasks": tasks.kinds,
        "network": networks.kinds,
        "sharing": sharing.kinds,
        "weighting": weighting.kinds,
    }
    return {
        family: [
            # what a kind's own options need not say is its kind
            _entry(name, registry.get(name), [o for o in _options(registry.get(name).Options) if o["name"] != "kind"])
            for name in registry.names()
        ]
        for family, registry in families.items()
    }


def describe_sections() -> list[dict[str, Any]]:
    """The other blocks of a configuration, with ``name``, ``summary`` and ``options`` as in :func:`describe_kinds`."""
    return [_entry(name, model, _options(model)) for name, model in BLOCKS.items()]


def _entry(name: str, described: Any, options: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "summary": _plain((described.__doc__ or "").strip().splitlines()[0]), "options": options}


def _options(model: Any) -> list[dict[str, Any]]:
    documented = _documented(model)
    return [
        {
            "name": field.alias or name,
            "type": _type_name(field.annotation),
            "default": None if field.is_required() else _json(field.get_default(call_default_factory=True)),
            "required": field.is_required(),
            "help": _plain(documented.get(name, "")),
        }
        for name, field in model.model_fields.items()
    ]


def _documented(model: Any) -> dict[str, str]:
    """Option -> its sentence in the ``Attributes`` of the model's docstring or a parent's."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        current: list[str] = []
        for line in (cls.__doc__ or "").splitlines():
            name, colon, rest = line.strip().partition(":")
            if colon and line.startswith("        ") and not line.startswith(" " * 9):
                current = [part.strip() for part in name.split(",")]
                found |= dict.fromkeys(current, rest.strip())
            elif line.startswith(" " * 12):
                found |= {part: f"{found[part]} {line.strip()}" for part in current}
    return found


def _json(value: Any) -> Any:
    """A default as JSON would give it back."""
    return list(value) if isinstance(value, tuple) else value


def _plain(text: str) -> str:
    """A docstring's words without its markup."""
    return re.sub(r"(:\w+:)?`+~?([^`]*)`+", r"\2", text)


def _type_name(annotation: Any) -> str:
    """A type as a writer of YAML reads it: words for literals, no bounds."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, inner))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, inner))}]"
    return {type(None): "null", Ellipsis: "..."}.get(annotation) or str(annotation.__name__)
