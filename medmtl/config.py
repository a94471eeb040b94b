"""The configuration of one experiment: strict YAML in, a validated record out.

The record is pydantic at the edge and never enters the training step. Paths are resolved against the file that names
them; a path given by an override (``--set``) is resolved against the working folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medmtl import networks, sharing, tasks, weighting
from medmtl.data.formats import strict_yaml
from medmtl.errors import ConfigError
from medmtl.networks.unet import UnetOptions
from medmtl.registry import Registry, nearest
from medmtl.sharing.base import SharingOptions
from medmtl.tasks.base import TaskOptions
from medmtl.validation import Lines, line_of, validated
from medmtl.weighting.base import WeightingOptions

SCHEMA = 1
NAME = re.compile(r"[a-z][a-z0-9_]*")
LATER = {
    "cohorts": "several cohorts in one training",
    "views": "a choice of views",
    "init": "starting from another run",
    "cohort.covariates": "clinical covariates",
    "split.tune": "a tuning split",
    "training.select": "selection of a best checkpoint",
    "inference.tta": "test-time augmentation",
}
LATER_TASKS = ("survival",)
PATH_KEYS = ("cohort.table", "split.file", "cache.folder", "cohort.roots")

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Triple = tuple[Count, Count, Count]


class Section(BaseModel):
    """A block of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CohortSection(Section):
    """Where the cases are. See the contract for each key."""

    table: Path
    case: str
    patient: str
    site: str | None = None
    channels: dict[str, str] = Field(min_length=1)
    missing: tuple[str, ...] = ("",)
    roots: tuple[Path, ...] = ()
    allow: tuple[Literal["shared-image", "constant"], ...] = ()
    resample: Literal["none", "to_first"] = "none"


class AugmentationSection(Section):
    """What a plausible patient may look like.

    Attributes:
        kind: ``default`` or ``none``.
        flips: axes (``x`` left-right, ``y`` front-back, ``z`` head-feet) along which a mirror image is plausible.
    """

    kind: Literal["default", "none"] = "default"
    flips: Literal["none"] | tuple[Literal["x", "y", "z"], ...] = "none"


class PlanSection(Section):
    """The memory budget, and any planned value that the user fixes."""

    memory_gb: Positive = 8.0
    spacing: tuple[Positive, Positive, Positive] | None = None
    shape: Triple | None = None
    batch: Count | None = None
    width: Annotated[int, Field(ge=4)] | None = None
    max_width: Annotated[int, Field(ge=4)] | None = None
    normalisation: dict[str, Literal["zscore", "zscore_nonzero", "ct", "none"]] = {}
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    workers: Annotated[int, Field(ge=0)] | None = None
    threads: Count | None = None


class SplitSection(Section):
    """How patients are divided: stratified folds, a column of the table, or a file."""

    folds: Annotated[int, Field(ge=2)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    test: Fraction = 0.0
    column: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SplitSection:
        if self.column and self.file:
            raise ValueError("give either column or file, not both")
        return self


class TrainingSection(Section):
    """How long and how fast.

    Attributes:
        steps, minutes: exactly one; minutes become a fixed number of steps after 20 warm ones.
        lr: peak learning rate of the trunk (encoder, decoder and voxel heads).
        head_lr: peak learning rate of the case heads; they want a lower one than a segmentation trunk.
        weight_decay: of AdamW.
        clip: largest gradient norm per parameter group.
        average: train with averaged weights (EMA) for evaluation.
        average_decay: decay per step of the average, reached by a warm-up.
        checkpoint_every, keep: steps between commits, and how many are kept.
    """

    steps: Count | None = None
    minutes: Positive | None = None
    lr: Annotated[float, Field(gt=0, lt=10)] = 4e-3
    head_lr: Annotated[float, Field(gt=0, lt=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 3e-2
    clip: Positive = 12.0
    average: bool = True
    average_decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    checkpoint_every: Count = 250
    keep: Annotated[int, Field(ge=2)] = 2

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give exactly one of steps and minutes")
        return self


class CacheSection(Section):
    """Where prepared arrays lie; by default beside the run."""

    folder: Path | None = None
    max_gb: Positive | None = None


class InferenceSection(Section):
    """How whole cases are predicted where they do not fit one window."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    tta: Literal["none"] = "none"


class Config(Section):
    """One experiment, fully resolved."""

    schema_: Literal[1] = Field(alias="schema")
    cohort: CohortSection
    tasks: dict[str, TaskOptions] = Field(min_length=1)
    primary: str | None = None
    network: UnetOptions
    sharing: SharingOptions
    weighting: WeightingOptions
    augmentation: AugmentationSection = AugmentationSection()
    plan: PlanSection = PlanSection()
    split: SplitSection = SplitSection()
    training: TrainingSection
    cache: CacheSection = CacheSection()
    inference: InferenceSection = InferenceSection()


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read, override and validate a configuration file.

    Args:
        path: the YAML file.
        overrides: dotted key -> value, as given by ``--set``.

    Raises:
        ConfigError: naming the key, its line and the nearest valid key.
    """
    document = strict_yaml.parse(_read_text(path))
    if not isinstance(document.data, dict):
        raise ConfigError("the file must hold keys and values", line=1)
    data = document.data
    _anchor_paths(data, path.absolute().parent.resolve())
    lines = dict(document.lines)
    for key, value in (overrides or {}).items():
        _override(data, key, value)
        place = tuple(key.split("."))
        # what was set stands in no line of the file
        lines = {path: line for path, line in lines.items() if path[: len(place)] != place} | {place: 0}
    return _validate(data, lines)


def parse_override(text: str) -> tuple[str, Any]:
    """``key=value`` as typed after ``--set``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set wants key=value, got {text!r}")
    # a path is what was typed, whatever YAML would make of it; the roots are a list of them
    raw = key.strip() in PATH_KEYS and key.strip() != "cohort.roots"
    return key.strip(), value if raw else strict_yaml.parse_scalar(value)


def dump(config: Config, folder: Path) -> str:
    """The resolved configuration as YAML for a file that will lie in ``folder``; its paths are relative to it."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True, serialize_as_any=True)
    for key in PATH_KEYS:
        block, _, name = key.partition(".")
        value = data.get(block, {}).get(name)
        if value:
            relative = [os.path.relpath(item, folder) for item in ([value] if isinstance(value, str) else value)]
            data[block][name] = relative[0] if isinstance(value, str) else relative
    return strict_yaml.dump(data)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _anchor_paths(data: dict[str, Any], folder: Path) -> None:
    for key in PATH_KEYS:
        block, _, name = key.partition(".")
        section = data.get(block)
        if isinstance(section, dict) and section.get(name):
            value = section[name]
            # normalised as text, so that a run's own copy names the same file in the same words
            anchored = [os.path.normpath(folder / str(v)) for v in (value if isinstance(value, list) else [value])]
            section[name] = anchored if isinstance(value, list) else anchored[0]


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    section = data
    for part in parts[:-1]:
        child = section.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{part!r} holds no keys", key=key)
        section = child
    if key in PATH_KEYS:
        listed = isinstance(value, list | tuple)
        value = [str(Path(str(v)).absolute()) for v in value] if listed else str(Path(str(value)).absolute())
    section[parts[-1]] = value
    for one, other in (("training.steps", "minutes"), ("training.minutes", "steps")):
        if key == one:
            section.pop(other, None)


def _validate(data: dict[str, Any], lines: Lines) -> Config:
    for key, meaning in LATER.items():
        section: Any = data
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section not in (None, "none"):
            raise ConfigError(f"{meaning} is not in this version", key=key, line=lines.get(tuple(key.split("."))))
        _discard(data, key)
    _refuse_optional_channels(data, lines)
    data = dict(data)
    data.setdefault("network", {"kind": "unet"})
    data.setdefault("sharing", {"kind": "hard"})
    data.setdefault("weighting", {"kind": "equal"})
    for family in (networks.kinds, sharing.kinds, weighting.kinds):
        key = "network" if family is networks.kinds else family.family
        data[key] = _component(family, data[key], (key,), lines)
    blocks = data.get("tasks")
    if isinstance(blocks, dict):
        data["tasks"] = {name: _component(tasks.kinds, block, ("tasks", name), lines) for name, block in blocks.items()}
    config: Config = validated(Config, data, (), lines)
    _check_names(config, lines)
    _check_combinations(config, lines)
    return config


def _refuse_optional_channels(data: Mapping[str, Any], lines: Lines) -> None:
    cohort = data.get("cohort")
    channels = cohort.get("channels") if isinstance(cohort, dict) else None
    for name, column in channels.items() if isinstance(channels, dict) else ():
        if isinstance(column, dict):
            place = ("cohort", "channels", name)
            message = "optional channels are not in this version; give the column's name"
            raise ConfigError(message, key=".".join(place), line=line_of(place, lines))


def _discard(data: dict[str, Any], key: str) -> None:
    block, _, name = key.rpartition(".")
    section = data.get(block) if block else data
    if isinstance(section, dict):
        section.pop(name, None)


def _component(family: Registry[Any], block: Any, path: tuple[str, ...], lines: Lines) -> BaseModel:
    key = ".".join(path)
    if not isinstance(block, dict) or "kind" not in block:
        raise ConfigError("a mapping with a kind is expected, such as {kind: ...}", key=key, line=lines.get(path))
    if family is tasks.kinds and block["kind"] in LATER_TASKS and block["kind"] not in family.names():
        raise ConfigError(f"{block['kind']} tasks are not in this version", key=key, line=line_of(path, lines))
    try:
        kind = family.get(block["kind"])
    except ConfigError as error:
        raise ConfigError(str(error), key=f"{key}.kind", line=line_of((*path, "kind"), lines)) from None
    options: BaseModel = validated(kind.Options, block, path, lines)
    return options


def _check_names(config: Config, lines: Lines) -> None:
    for name in config.tasks:
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"a task name must match {NAME.pattern}, found {name!r}", key="tasks", line=lines.get(("tasks", name))
            )
    for channel in config.plan.normalisation:
        if channel not in config.cohort.channels:
            place = ("plan", "normalisation", channel)
            guess = nearest(channel, config.cohort.channels)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise ConfigError(f"no such channel{hint}", key=".".join(place), line=line_of(place, lines))
    if config.primary is not None and config.primary not in config.tasks:
        raise ConfigError(f"{config.primary!r} is no task of this file", key="primary", line=lines.get(("primary",)))


def _check_combinations(config: Config, lines: Lines) -> None:
    built = {name: tasks.kinds.get(options.kind)(name, options) for name, options in config.tasks.items()}
    method = weighting.kinds.get(config.weighting.kind)
    for name, task in built.items():
        if method.positive_losses and not task.positive_loss:
            raise ConfigError(
                f"weighting.kind {method.kind!r} needs positive losses, and tasks.{name} ({task.kind}) has one that "
                "is not; choose another of the two",
                line=lines.get(("weighting",)),
            )
    try:
        method(config.weighting, list(built))
        for task in built.values():
            task.resolve(built)
    except ValueError as error:
        raise ConfigError(str(error)) from None
