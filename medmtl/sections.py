"""The blocks of a configuration file and what each key may hold; defaults as in the contract."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from medmtl.data.covariates import CovariateKind
from medmtl.validation import Rule

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32), Rule("B139")]
Triple = tuple[Count, Count, Count]
Stages = Annotated[tuple[Triple, ...], Field(min_length=1)]

SGD_WEIGHT_DECAY = 3e-5


class Section(BaseModel):
    """A block of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChannelSection(Section):
    """A channel of which more is said than its column.

    Attributes:
        column: of its image files.
        optional: whether a case may lack it.
    """

    column: str
    optional: bool = False


class CohortSection(Section):
    """Where the cases are, and what the columns of their table mean.

    Attributes:
        table: CSV, or TSV where the name ends in ``.tsv``, one row per case; paths in it are relative to its folder.
        case: column of the case ids.
        patient: column of the patients, of whom none is in two splits; the column of the cases says that each is a
            person.
        site: column of the hospital or scanner: strata of the folds, scores by site and within sites.
        channels: channel name -> column of its image files, or ``{column: ..., optional: true}`` for a channel that a
            case may lack.
        covariates: column -> ``number`` or ``category``, clinical values that a task may read.
        missing: what a cell holds where nothing is known, such as ``["", NA, "-"]``; an empty cell always means that.
        roots: folders outside of the table's own that may be read.
        allow: exceptions to the check: ``shared-image`` (rows that name one image), ``constant`` (images that hold one
            value only).
        resample: ``none`` refuses channels of a case that are not on one grid; ``to_first`` brings them to the first
            one's.
    """

    table: Path
    case: str
    patient: Annotated[str, Rule("B022", "name the column of patients, or that of cases where each is a person")]
    site: str | None = None
    channels: dict[str, str | ChannelSection] = Field(min_length=1)
    covariates: dict[str, CovariateKind] = {}
    missing: tuple[str, ...] = ("",)
    roots: tuple[Path, ...] = ()
    allow: tuple[Literal["shared-image", "constant"], ...] = ()
    resample: Literal["none", "to_first"] = "none"

    @property
    def columns(self) -> dict[str, str]:
        """Channel name -> column, in input order."""
        return {name: held if isinstance(held, str) else held.column for name, held in self.channels.items()}

    @property
    def optional(self) -> tuple[str, ...]:
        """Channels that a case may lack, in input order."""
        return tuple(name for name, held in self.channels.items() if not isinstance(held, str) and held.optional)


class NamedCohortSection(CohortSection):
    """One of several cohorts.

    Attributes:
        name: goes before the ids of its cases and patients, and is their site where no column says one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]


class AugmentationSection(Section):
    """What a plausible patient may look like.

    Attributes:
        kind: ``default`` or ``none``. A sample that was changed in a way that a task is sensitive to does not train it.
        flips: axes (``x`` left-right, ``y`` front-back, ``z`` head-feet) along which a mirror image is plausible.
    """

    kind: Literal["default", "none"] = "default"
    flips: Literal["none"] | tuple[Literal["x", "y", "z"], ...] = "none"


class PlanSection(Section):
    """The memory budget, and any planned value that the user fixes.

    Attributes:
        memory_gb: memory that a training may need, of the GPU or of the process; patch and batch follow from it.
        spacing: voxel size in mm, per axis of the RAS-ordered array.
        shape: voxels of a sample.
        batch: samples per step.
        width: channels of the first stage.
        max_width: most channels of a stage.
        strides, kernels, channels: of every stage, finest first; instead of what is planned.
        nnunet: an nnU-Net ``plans.json``, which decides what is not set here; see :func:`medmtl.nnunet.honour`.
        configuration: which of its configurations.
        normalisation: channel -> how its intensities are normalised; others as planned.
        precision: of the network's arithmetic in training.
        workers: loader processes; 0 loads between the steps.
        threads: that compute on a CPU.
    """

    memory_gb: Positive = 8.0
    spacing: tuple[Positive, Positive, Positive] | None = None
    shape: Triple | None = None
    batch: Count | None = None
    width: Annotated[int, Field(ge=4)] | None = None
    max_width: Annotated[int, Field(ge=4)] | None = None
    strides: Stages | None = None
    kernels: Stages | None = None
    channels: Annotated[tuple[Annotated[int, Field(ge=4)], ...], Field(min_length=1)] | None = None
    nnunet: Path | None = None
    configuration: str = "3d_fullres"
    normalisation: dict[str, Literal["zscore", "zscore_nonzero", "ct", "none"]] = {}
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    workers: Annotated[int, Field(ge=0)] | None = None
    threads: Count | None = None
    _taken: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="after")
    def _widths_agree(self) -> PlanSection:
        if self.width is not None and self.max_width is not None and self.max_width < self.width:
            raise ValueError(f"max_width {self.max_width} is below width {self.width}; raise it or leave it away")
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> PlanSection:
        if (self.strides is None) != (self.kernels is None):
            raise ValueError("strides and kernels go together; give both or none")
        if self.channels is not None and (self.width is not None or self.max_width is not None):
            raise ValueError("channels are the width of every stage; leave width and max_width, or channels, away")
        held = [value for value in (self.strides, self.kernels, self.channels) if value is not None]
        if len({len(value) for value in held}) > 1:
            raise ValueError("strides, kernels and channels have one entry per stage, and differ in length")
        if self.strides is not None and self.strides[0] != (1, 1, 1):
            raise ValueError(f"the first stride must be [1, 1, 1] (found {list(self.strides[0])})")
        if even := [kernel for kernel in self.kernels or () if any(size % 2 == 0 for size in kernel)]:
            raise ValueError(f"kernels must be odd (found {list(even[0])})")
        return self

    def with_taken(self, keys: Iterable[str]) -> Self:
        """The same, whose keys of these names came from the plan of ``nnunet``."""
        copy = self.model_copy()
        copy._taken = frozenset(keys)
        return copy

    def reason(self, key: str) -> str:
        """Where the value of a key that is set came from."""
        assert self.nnunet is not None or key not in self._taken
        file = self.nnunet.name if self.nnunet else ""
        return f"from {file}, {self.configuration}" if key in self._taken else "set in the configuration"


class SplitSection(Section):
    """How patients are divided: stratified folds, a column of the table, or a file.

    Attributes:
        folds: how many; balanced by the labels of all tasks and by site, so that another set of tasks has other folds.
        seed: of the draw.
        test: share of the patients that no fold sees, for a last look.
        column: of the table, with ``train``, ``val`` or ``test`` in each cell; one split instead of folds.
        file: nnU-Net's ``splits_final.json``, or the ``splits.json`` of a run, whose folds are taken. Cases that no
            fold names are the test part.
    """

    folds: Annotated[int, Field(ge=2)] = 5
    seed: Seed = 0
    test: Fraction = 0.0
    column: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SplitSection:
        if self.column and self.file:
            raise ValueError("give either column or file, not both")
        source = "column" if self.column else "file" if self.file else None
        # a stored configuration names every key, so only another value than the default was asked for
        ignored = [name for name in ("folds", "seed", "test") if getattr(self, name) != _default(self, name)]
        if source and ignored:
            raise ValueError(f"{source} decides the split, and {', '.join(ignored)} would be ignored; leave one away")
        return self


class HeadSection(Section):
    """What a case head has of its own.

    Attributes:
        lr: peak learning rate; null takes ``training.head_lr``.
        warm_up: steps until it is reached; null takes the trunk's.
    """

    lr: Annotated[float, Field(gt=0, lt=10)] | None = None
    warm_up: Count | None = None


class TimesSection(Section):
    """When a task trains, in shares of the training's steps.

    Attributes:
        start: where it begins; before that it is absent.
        stop: where it ends; from there on it is absent, and what only it reaches stays as it is.
        ramp: share of the steps, from ``start`` on, in which its loss's factor rises to 1.
    """

    start: Fraction = 0.0
    stop: Annotated[float, Field(gt=0, le=1)] = 1.0
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> TimesSection:
        if self.stop <= self.start:
            raise ValueError(f"stop {self.stop:g} is not after start {self.start:g}; raise stop or lower start")
        # a third of a third is not a ninth to the last bit
        if self.start + self.ramp > self.stop + 1e-9:
            raise ValueError(
                f"start {self.start:g} + ramp {self.ramp:g} is beyond stop {self.stop:g}: its loss would never count "
                "in full; shorten the ramp or raise stop"
            )
        return self

    @property
    def at_once(self) -> bool:
        """Whether it trains in full from the first step on."""
        return self.start == 0 and self.ramp == 0

    def span(self, steps: int) -> tuple[int, int]:
        """The first 0-based step that trains it, and the first one after that which does not."""
        return round(self.start * steps), round(self.stop * steps)


class TrainingSection(Section):
    """How long and how fast.

    Attributes:
        steps: length of the training; either this or ``minutes`` is given.
        minutes: its length in minutes, validations included and preparation not; they become a fixed number of steps
            after 20 warm ones.
        sampling: ``even``: every case that has a label equally often, whole cases of one shape in one step.
            ``labelled``: each task's labelled cases equally often, however few; see
            :meth:`medmtl.data.order.CaseOrder.labelled`. A task with few labels then gets its share of every step by
            repeating them, and who is labelled decides what all tasks see, so that it is to be asked for.
        optimiser: ``adamw``, or ``sgd`` with Nesterov momentum 0.99 as in nnU-Net, whose ``lr`` is 0.01. The defaults
            of the rates are AdamW's for both.
        lr: peak learning rate of a trunk that voxel tasks train (encoder, decoder and voxel heads).
        head_lr: peak learning rate of the case heads, and of an encoder that case tasks alone train; they want a lower
            one than a segmentation's trunk.
        head_gradient: share of a case head's gradient that reaches the trunk. A case label is one number per scan and
            its gradient mostly noise at the batch sizes of 3D: undamped it is many times a mask's and drowns it.
        heads: case task -> its own rate and warm-up.
        tasks: task -> when it trains; the others always do.
        alternate: ``none``: a step trains all tasks that it has labels for. ``cycle``: one of them, in turn.
            ``sample``: one of them, each with the same probability.
        telemetry: steps between two measurements of the angles between the tasks' gradients, for the run's own log and
            report; 0 measures nothing.
        weight_decay: by default 3e-2 for AdamW, where it is decoupled, and 3e-5 for SGD, as in nnU-Net.
        clip: largest gradient norm per parameter group.
        average: keep an average of the weights (EMA) beside them, which evaluation, prediction and ``init`` then use.
        average_decay: decay per step of the average, reached by a warm-up.
        seed: of the weights and of every draw in training.
        checkpoint_every: steps between commits, from which ``--resume`` goes on; with each, the losses of up to 16
            validation cases are logged.
        keep: how many commits are kept.
    """

    steps: Count | None = None
    minutes: Positive | None = None
    sampling: Literal["even", "labelled"] = "even"
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0, lt=10)] = 4e-3
    head_lr: Annotated[float, Field(gt=0, lt=10)] = 1e-3
    head_gradient: Annotated[float, Field(ge=0, le=1)] = 0.02
    heads: dict[str, HeadSection] = {}
    tasks: dict[str, TimesSection] = {}
    alternate: Literal["none", "cycle", "sample"] = "none"
    telemetry: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 3e-2
    clip: Positive = 12.0
    average: bool = True
    average_decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    seed: Seed = 0
    checkpoint_every: Count = 250
    keep: Annotated[int, Field(ge=2)] = 2

    @model_validator(mode="before")
    @classmethod
    def _decay_of_the_optimiser(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("optimiser") == "sgd":
            return {"weight_decay": SGD_WEIGHT_DECAY, **given}
        return given

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give exactly one of steps and minutes")
        return self


class ViewsSection(Section):
    """How case tasks see a case.

    Attributes:
        kind: ``one``: as voxel tasks do. Beside patches for the voxel tasks, ``two``: the whole case at a coarser
            spacing; ``lesion``: a window around the largest lesion, of the reference in training and of the prediction
            afterwards; ``tiles``: windows over the whole case, joined by attention. ``auto`` leaves it to the planner.
        share: whether the second view has the first one's convolutions.
        around: the label task whose mask shows the lesion; may be left away where there is one only.
        spacing: voxel size in mm of the whole case, per axis; otherwise planned.
        shape: voxels of the window around a lesion; otherwise planned.
        tiles: windows per case and step; otherwise planned.
    """

    kind: Literal["auto", "one", "two", "lesion", "tiles"] = "auto"
    share: bool = True
    around: str | None = None
    spacing: tuple[Positive, Positive, Positive] | None = None
    shape: Triple | None = None
    tiles: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> ViewsSection:
        owners = {"around": ("lesion", "tiles"), "spacing": ("two",), "shape": ("lesion",), "tiles": ("tiles",)}
        for name, kinds in owners.items():
            if getattr(self, name) is not None and self.kind not in ("auto", *kinds):
                raise ValueError(f"{name} is for {' or '.join(kinds)}, and kind is {self.kind}; leave one away")
        return self


class InitSection(Section):
    """Another run, whose trunk this one starts from.

    Attributes:
        run: its folder, or a folder of folds, of which that of this run's fold is taken; must have held out whom this
            run holds out.
        freeze: steps for which what came from it is held still, so that new heads settle first.
    """

    run: Path
    freeze: Annotated[int, Field(ge=0)] = 0


class CacheSection(Section):
    """Where prepared arrays lie.

    Attributes:
        folder: by default ``.medmtl-cache`` beside the run, or beside the folder of a run's folds; may be shared by
            runs, and deleted when none is running.
    """

    folder: Path | None = None


class InferenceSection(Section):
    """How whole cases are predicted.

    Attributes:
        overlap: share of a window that the next one covers, where a case does not fit one.
        tta: ``flips`` also looks at the mirror images along the axes of ``augmentation.flips``: 1, 3 or 7 more passes.
        precision: of the network's arithmetic. ``auto`` is that of the training where the device computes in it, and
            fp32 elsewhere.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    tta: Literal["none", "flips"] = "none"
    precision: Literal["auto", "fp32", "bf16"] = "auto"


def _default(section: Section, name: str) -> object:
    return type(section).model_fields[name].default
