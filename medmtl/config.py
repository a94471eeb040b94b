"""The configuration of one experiment: strict YAML in, a validated record out.

The record is pydantic at the edge and never enters the training step. Paths are resolved against the file that names
them; a path given by an override (``--set``) is resolved against the working folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from medmtl import cohort_list, networks, nnunet, sharing, tasks, weighting
from medmtl.combinations import check_combinations
from medmtl.data.case import Case
from medmtl.data.covariates import CovariateKind
from medmtl.data.formats import strict_yaml
from medmtl.data.table import TABLES
from medmtl.errors import ConfigError, InputError
from medmtl.networks.encoder import EncoderOptions
from medmtl.registry import Registry
from medmtl.sections import (
    AugmentationSection,
    CacheSection,
    CohortSection,
    InferenceSection,
    InitSection,
    NamedCohortSection,
    PlanSection,
    Section,
    SplitSection,
    TrainingSection,
    ViewsSection,
)
from medmtl.sharing.base import SharingOptions
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import TaskOptions
from medmtl.validation import NAME, Faults, Lines, Rule, line_of, validated
from medmtl.weighting.base import WeightingOptions

SCHEMA = 1
LATER = {
    "cache.max_gb": "a limit on the cache's size",
    "split.tune": "a tuning split",
    "training.select": "selection of a best checkpoint",
}
# where a file leaves a block of kinds out
DEFAULT_KINDS = {"network": "unet", "sharing": "hard", "weighting": "equal"}
PATH_KEYS = ("cohort.table", "split.file", "cache.folder", "cohort.roots", "init.run", "plan.nnunet")


class Config(Section):
    """One experiment, fully resolved. Of several cohorts ``cohort`` is the first."""

    schema_: Annotated[Literal[1], Rule("B146", f"this version reads {SCHEMA}")] = Field(alias="schema")
    cohort: CohortSection
    cohorts: tuple[NamedCohortSection, ...] = ()
    tasks: Annotated[dict[str, TaskOptions], Rule("B141", "name at least one task")] = Field(min_length=1)
    primary: str | None = None
    network: EncoderOptions
    sharing: SharingOptions
    weighting: WeightingOptions
    augmentation: AugmentationSection = AugmentationSection()
    views: ViewsSection = ViewsSection()
    plan: PlanSection = PlanSection()
    split: SplitSection = SplitSection()
    training: Annotated[TrainingSection, Rule("", "write training: {minutes: 30}, or {steps: 5000}")]
    cache: CacheSection = CacheSection()
    inference: InferenceSection = InferenceSection()
    init: InitSection | None = None

    @property
    def used_covariates(self) -> dict[str, CovariateKind]:
        """The declared covariates, where a task reads them; otherwise none."""
        used = any(options.inputs != "image" for options in self.tasks.values())
        return self.cohort.covariates if used else {}

    def cohort_of(self, case: Case) -> CohortSection:
        """The section that a case is from."""
        return next((section for section in self.cohorts if section.name == case.cohort), self.cohort)


def path_of(given: object) -> Path:
    """The path of a configuration, of which a script may give the content by mistake.

    Raises:
        InputError: it is no path.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"a configuration is given by the path of its file, found a {type(given).__name__}")
    return Path(given)


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read, override and validate a configuration file.

    Args:
        path: the YAML file.
        overrides: dotted key -> value, as given by ``--set``.

    Raises:
        ConfigError: naming the key, its line and the nearest valid key; its ``faults`` are all that were found.
        InputError: if ``overrides`` are no mapping of dotted keys.
    """
    _refuse_no_keys(overrides)
    document = strict_yaml.parse(_read_text(path))
    if not isinstance(document.data, dict):
        raise ConfigError("the file must hold keys and values", line=1, code="B131")
    data = document.data
    _anchor_paths(data, path.absolute().parent.resolve())
    lines = dict(document.lines)
    _refuse_other_tasks(data.get("tasks"), overrides or {})
    for key, value in (overrides or {}).items():
        _override(data, key, value)
        place = tuple(key.split("."))
        # what was set stands in no line of the file
        lines = {path: line for path, line in lines.items() if path[: len(place)] != place} | {place: 0}
    return _validate(data, lines)


def _refuse_no_keys(overrides: object) -> None:
    """A script may give what is typed after ``--set``, or a list of it."""
    if overrides is None:
        return
    found: str | None = f"a {type(overrides).__name__}"
    if isinstance(overrides, Mapping):
        found = next((f"the key {key!r}" for key in overrides if not isinstance(key, str)), None)
    if found is not None:
        raise InputError(
            f"overrides are a mapping of dotted keys to values, such as {{'training.lr': 1e-3}}; found {found}",
            code="B164",
        )


def _refuse_other_tasks(tasks: Any, overrides: Mapping[str, Any]) -> None:
    """Refuse options of a task that is in neither the file nor made by its ``kind``: its name is mistyped."""
    for key in overrides:
        first, *rest = key.split(".")
        if first != "tasks" or len(rest) < 2 or not isinstance(tasks, dict) or rest[0] in tasks:
            continue
        if not {f"tasks.{rest[0]}", f"tasks.{rest[0]}.kind"} & overrides.keys():
            hint = did_you_mean(rest[0], tasks) or f"known: {', '.join(map(str, tasks))}"
            raise ConfigError(f"no task is called {rest[0]!r}; {hint}", key=key, code="B164")


def parse_override(text: str) -> tuple[str, Any]:
    """``key=value`` as typed after ``--set``; the value is read as YAML.

    Raises:
        ConfigError: it is no such pair, or the value is no plain data.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--set wants key=value, such as training.lr=1e-3, got {text!r}", code="B164")
    strict_yaml.refuse_secret(tuple(key.split(".")))
    # a path is what was typed, whatever YAML would make of it; the roots are a list of them
    if key in PATH_KEYS and key != "cohort.roots":
        if not value:
            raise ConfigError("a path is expected after =", key=key, code="B164")
        return key, value
    try:
        return key, strict_yaml.parse_scalar(value)
    except ConfigError as error:
        raise ConfigError(error.sentence, key=key, code=error.code) from None


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Everything that was typed after ``--set``; see :func:`parse_override`.

    Raises:
        ConfigError: one of them is wrong, or a key is set twice.
    """
    found: dict[str, Any] = {}
    for key, value in map(parse_override, texts):
        if key in found:
            raise ConfigError("--set gives it twice; give it once", key=key, code="B163")
        found[key] = value
    return found


def dump(config: Config, folder: Path) -> str:
    """The resolved configuration as YAML for a file that will lie in ``folder``; its paths are relative to it."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True, serialize_as_any=True)
    data.pop("cohort" if config.cohorts else "cohorts")
    for section, name in cohort_list.path_places(data, PATH_KEYS):
        value = section[name]
        relative = [os.path.relpath(item, folder) for item in ([value] if isinstance(value, str) else value)]
        section[name] = relative[0] if isinstance(value, str) else relative
    return strict_yaml.dump(data)


def dotted(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as data, by their dotted keys such as ``training.lr``."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        found |= dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _read_text(path: Path) -> str:
    if path.suffix.lower() in TABLES:
        raise ConfigError(f"{path} is a table; give the YAML file that names it as cohort.table", code="B130")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give its config.yaml", code="B130")
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is a pipe or a device, not a file", code="B130")
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", code="B130") from None
    if len(data) > strict_yaml.MAX_BYTES:
        raise ConfigError(f"{path} is larger than {strict_yaml.MAX_BYTES} bytes; is it a configuration?", code="B130")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8", code="B130") from None


def _anchor_paths(data: dict[str, Any], folder: Path) -> None:
    for section, name in cohort_list.path_places(data, PATH_KEYS):
        value = section[name]
        # normalised as text, so that a run's own copy names the same file in the same words
        anchored = [os.path.normpath(folder / str(v)) for v in (value if isinstance(value, list) else [value])]
        section[name] = anchored if isinstance(value, list) else anchored[0]


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    section = data
    for part in parts[:-1]:
        # of a block that the file leaves out all but this one key is as it would be
        missing = {"kind": DEFAULT_KINDS[part]} if section is data and part in DEFAULT_KINDS else {}
        child = section.setdefault(part, missing)
        if not isinstance(child, dict):
            raise ConfigError(f"{part!r} holds no keys", key=key, code="B164")
        section = child
    if key in PATH_KEYS:
        listed = isinstance(value, list | tuple)
        value = [str(Path(str(v)).absolute()) for v in value] if listed else str(Path(str(value)).absolute())
    section[parts[-1]] = value
    for one, other in (("training.steps", "minutes"), ("training.minutes", "steps")):
        if key == one and value is not None:
            section.pop(other, None)


def _validate(data: dict[str, Any], lines: Lines) -> Config:
    _check_schema(data, lines)
    faults = Faults(lines)
    _refuse_later(data, faults)
    cohort_list.take_cohorts(data, faults)
    data = {**{key: {"kind": kind} for key, kind in DEFAULT_KINDS.items()}, **data}
    components: dict[str, tuple[Registry[Any], BaseModel]] = {
        "network": (networks.kinds, EncoderOptions.model_construct()),
        "sharing": (sharing.kinds, SharingOptions.model_construct()),
        "weighting": (weighting.kinds, WeightingOptions.model_construct()),
    }
    for key, (family, stand_in) in components.items():
        data[key] = _component(family, data[key], (key,), faults, stand_in)
    blocks = data.get("tasks")
    if isinstance(blocks, dict):
        stand_in = TaskOptions.model_construct()
        data["tasks"] = {
            name: _component(tasks.kinds, block, ("tasks", name), faults, stand_in) for name, block in blocks.items()
        }
    config: Config | None = None
    with faults.kept():
        config = validated(Config, data, (), lines)
    faults.refuse()
    assert config is not None  # or there was a fault
    config = nnunet.honour(config, faults)
    _check_names(config, faults)
    check_combinations(config, faults)
    faults.refuse()
    return config


def _check_schema(data: Mapping[str, Any], lines: Lines) -> None:
    found = data.get("schema", SCHEMA)
    if type(found) is int and found == SCHEMA:
        return
    newer = type(found) is int and found > SCHEMA
    fix = "a newer medmtl wrote the file: update medmtl" if newer else "there is no other that this version reads"
    message = f"should be {SCHEMA} (found {str(found)[:40]!r}); {fix}"
    raise ConfigError(message, key="schema", line=line_of(("schema",), lines), code="B146")


def _refuse_later(data: dict[str, Any], faults: Faults) -> None:
    """Keys that the contract has and this version has not; where they ask for nothing they are dropped."""
    for key, meaning in LATER.items():
        section: Any = data
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section not in (None, "none"):
            faults.add(tuple(key.split(".")), f"{meaning} is not in this version", "B132")
        _discard(data, key)


def _discard(data: dict[str, Any], key: str) -> None:
    block, _, name = key.rpartition(".")
    section = data.get(block) if block else data
    if isinstance(section, dict):
        section.pop(name, None)


def _component(
    family: Registry[Any], block: Any, path: tuple[str, ...], faults: Faults, stand_in: BaseModel
) -> BaseModel:
    """A kind's options; where they are wrong, ``stand_in``, so that the rest of the file can be looked at."""
    if not isinstance(block, dict) or "kind" not in block:
        faults.add(path, f"a mapping with a kind is expected, such as {{kind: {family.names()[0]}}}", "B137")
        return stand_in
    options, place = stand_in, (*path, "kind")
    with faults.kept():
        kind = family.get(block["kind"], key=".".join(place), line=line_of(place, faults.lines))
        model: type[BaseModel] = kind.Options
        options = validated(model, block, path, faults.lines)
    return options


def _check_names(config: Config, faults: Faults) -> None:
    for name in config.tasks:
        if not NAME.fullmatch(name):
            message = f"a task name must match {NAME.pattern}, found {name!r}"
            faults.add(("tasks",), message, "B141", at=("tasks", name))
    for channel in config.plan.normalisation:
        if channel not in config.cohort.channels:
            message = f"no such channel{did_you_mean(channel, config.cohort.channels, '; ')}"
            faults.add(("plan", "normalisation", channel), message, "B132")
    if config.primary is not None and config.primary not in config.tasks:
        message = f"{config.primary!r} is no task of this file{did_you_mean(config.primary, config.tasks, '; ')}"
        faults.add(("primary",), message, "B141")
