"""What every task kind provides: columns, head, loss, result and metrics, in one object."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict
from torch import nn

from medmtl.data.case import Case
from medmtl.data.finding import Fault
from medmtl.data.volume import Volume
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.expected_width import ExpectedWidth
from medmtl.metrics.figures import Figure
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.learning import Learning

Sensitivity = Literal["scale", "crop", "flip", "intensity"]
Evidence = Literal["case", "lesion", "anywhere"]
Inputs = Literal["image", "covariates", "both"]
Cell = str | float | None
Numbers = float | list[float]


def _as_names(value: Any) -> Any:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
"""Names in an option, of which a single one needs no list."""


class TaskOptions(BaseModel):
    """Options that every kind has. A kind's own options subclass this.

    Attributes:
        kind: name of the kind.
        evidence: where the image shows what the label says; decides which view the task sees.
        sensitive_to: what would change the label, so that augmentation leaves it alone; None takes the kind's default.
        inputs: what a case task reads: the ``image``, all of ``cohort.covariates``, or ``both``. A voxel task reads the
            image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    evidence: Evidence = "case"
    sensitive_to: tuple[Sensitivity, ...] | None = None
    inputs: Inputs = "image"


class CellError(Fault, ValueError):
    """A cell of the table is not a valid target; ``check`` makes it a finding.

    Args:
        code: id of the rule in the catalogue.
        column: the column of the cell.
        found, expected, fix: as in :class:`medmtl.data.finding.Finding`.
    """

    def __init__(self, code: str, *, column: str, found: str, expected: str, fix: str) -> None:
        message = f"[{code}] column {column}: found {found!r}; expected {expected}; {fix}"
        super().__init__(message, code, found=found, expected=expected, fix=fix, column=column)


@dataclass(frozen=True)
class Doubt:
    """Something odd about a task's labels, which ``check`` warns about.

    Attributes:
        code: id of the rule in the catalogue.
        column: of the table.
        found, expected, fix: as in :class:`medmtl.data.finding.Finding`.
        case_id: the case, where it is about one.
    """

    code: str
    column: str
    found: str
    expected: str
    fix: str
    case_id: str | None = None


@dataclass(frozen=True)
class Result:
    """What a model says about one case for one task. Kinds subclass it with named fields.

    Attributes:
        mask: labels on the grid of the case's first image, for label tasks; otherwise None.
        map: values on that grid, float32, for map tasks; otherwise None.
    """

    mask: Volume | None = None
    map: Volume | None = field(default=None, kw_only=True)

    def cells(self, name: str) -> dict[str, Cell]:
        """Columns of ``predictions.csv`` for a task called ``name``, in order."""
        raise NotImplementedError


@dataclass(frozen=True)
class ScoredCase:
    """A prediction beside its reference.

    Attributes:
        fold: fold whose model predicted it; ranking metrics compare pairs within a fold only.
        truth: the parsed target; None where the case is not labelled.
        result: without its mask or map once ``scores`` are computed from it.
        scores: per-case metrics by name, None where one cannot be computed.
        reference: numbers that its scores refer to, by name: what its model learned (:meth:`CaseTask.reference`), and
            what was fitted on other folds (:meth:`CaseTask.out_of_fold`).
    """

    case_id: str
    patient: str
    site: str | None
    fold: int
    truth: Any
    result: Result
    scores: Mapping[str, float | None] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)


class Task(Learning):
    """One target of the cohort; how it learns is of :class:`medmtl.tasks.learning.Learning`.

    Args:
        name: the configuration's name for it.
        options: the kind's options.
        fitted: what :meth:`fit` learned from the training fold; None before planning.

    Attributes:
        positive_loss: whether the loss is always above zero, which some weightings need; an option may decide it.
        guides: the tasks with labels per voxel whose probabilities the head reads; none by default.
        rows_per_patient: what ``check`` does where a patient has several labelled rows; an option may decide it.
        sampling_option: name of the option, if any, that has :meth:`sampling_groups` give groups.
    """

    kind: ClassVar[str]
    Options: ClassVar[type[TaskOptions]]
    voxel: ClassVar[bool]
    default_sensitivity: ClassVar[tuple[Sensitivity, ...]] = ()
    positive_loss: bool = True
    guides: tuple[str, ...] = ()
    rows_per_patient: Literal["any", "doubted", "one"] = "any"
    sampling_option: ClassVar[str] = ""

    def __init__(self, name: str, options: TaskOptions, fitted: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.options = options
        self.fitted: Mapping[str, Any] = fitted or {}

    @property
    def sensitive_to(self) -> frozenset[Sensitivity]:
        """What would change the label: as declared, or the kind's default."""
        declared = self.options.sensitive_to
        return frozenset(self.default_sensitivity if declared is None else declared)

    @property
    def reads_image(self) -> bool:
        """Whether its head reads feature maps; they need not be computed for a task that does not."""
        return self.options.inputs != "covariates"

    @property
    def reads_covariates(self) -> bool:
        """Whether its head reads the clinical covariates."""
        return self.options.inputs != "image"

    @property
    def loss_scale(self) -> float:
        """Loss of the best constant predictor on the training fold, frozen at planning."""
        return float(self.fitted.get("loss_scale", 1.0))

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the table it reads. A voxel task's single column names a label file."""

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """The columns that its results' :meth:`Result.cells` have; by default ``NAME`` alone."""
        return (self.name,)

    @property
    def result_columns(self) -> tuple[str, ...]:
        """Its columns in ``predictions.csv`` and ``cases.csv``, but for per-case metrics (``NAME/METRIC``)."""
        own = (self.name, f"{self.name}_true", f"{self.name}_file")
        return tuple(dict.fromkeys((*self.answer_columns, *own)))

    @abstractmethod
    def read(self, case: Case) -> Any:
        """The target of a case, or None where it is not labelled.

        Raises:
            CellError: if the cell is no valid target.
        """

    @abstractmethod
    def fit(self, truths: Sequence[Any]) -> dict[str, Any]:
        """What must be learned from the training fold's labelled targets, JSON-able; holds ``loss_scale``."""

    def doubts(self, truths: Mapping[str, Any]) -> list[Doubt]:
        """What is odd about the labels of all cases together without being wrong; by default nothing.

        Args:
            truths: case id -> target.
        """
        return []

    def strata(self, truths: Mapping[str, Any]) -> Mapping[str, str | frozenset[str]]:
        """Stratum of each labelled case, or the several that it belongs to, for stratified folds.

        By default none, as all are alike.

        Args:
            truths: case id -> target.
        """
        return dict.fromkeys(truths, frozenset[str]())

    def sampling_groups(self, truths: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Group of each labelled case (id -> target), where groups are to be drawn equally often; None by default."""
        return None

    def resolve(self, others: Mapping[str, Task]) -> dict[str, Any]:
        """What this task must know of the configuration's other tasks, JSON-able; joins what :meth:`fit` returned.

        Raises:
            ValueError: if a task that the options name is absent or does not fit.
        """
        return {}

    def same_target(self, other: Task) -> None:
        """Refuse a task of another cohort's configuration that does not mean the same as this one.

        Raises:
            ValueError: says what differs; by default the kind.
        """
        if other.kind != self.kind:
            raise ValueError(f"it is a {other.kind}, and the model's is a {self.kind}")

    @abstractmethod
    def encode(self, truth: Any) -> torch.Tensor:
        """The target of one sample as the loss wants it. ``truth`` None gives a valid dummy of the same shape.

        A case task gets what :meth:`read` returned; a voxel task gets an array of label values (D, H, W), never None.
        """

    @abstractmethod
    def head(self, spec: FeatureSpec) -> nn.Module:
        """A module that maps :class:`Features` to this task's output. It never holds the encoder."""

    @abstractmethod
    def activate(self, output: Any) -> torch.Tensor:
        """Probabilities or values, fp32: what may be averaged over tiles, flips and folds.

        Case tasks: (B, K). Voxel tasks: (B, K, D, H, W).
        """

    @abstractmethod
    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """Metrics over labelled cases by name; the first is the primary one."""

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """The 95 % interval of the primary metric to expect, from the labels alone; nothing by default.

        Args:
            folds: per fold, patient and target of each labelled validation case.
        """
        return ExpectedWidth(why="this kind does not say what to expect")

    @abstractmethod
    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """What the report draws for this task."""


class CaseTask(Task):
    """A task with one answer per case.

    Attributes:
        ranking_metric: a metric that compares pairs of cases, which a site can earn; it is then also scored within
            sites. A kind that names one has :meth:`constant_result`.
        may_lack: strata that a part may be without and be scored all the same.
    """

    voxel = False
    ranking_metric: ClassVar[str | None] = None
    may_lack: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[Numbers, Numbers]:
        """Prediction and target of one sample on one scale, for the collapse check: two numbers, or as many of each."""

    @abstractmethod
    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> Result:
        """The answer for a case from its averaged activation; ``masks`` holds the voxel tasks' predicted masks."""

    def over_windows(self, activation_WK: torch.Tensor) -> torch.Tensor:
        """One activation (K,) from those of a case's windows, under ``evidence: anywhere``; by default their mean."""
        return activation_WK.mean(dim=0)

    def constant_result(self, truths: Sequence[Any]) -> Result:
        """The answer that knows no more of a case than that its target is one of these, at least one."""
        raise NotImplementedError

    def in_words(self, truths: Sequence[Any]) -> str:
        """What these targets hold together, such as their range, for ``check`` to show; by default nothing."""
        return ""

    def truth_cells(self, truth: Any) -> dict[str, Cell]:
        """The target as columns of ``cases.csv``; a target of several parts has several. ``truth`` may be None."""
        return {f"{self.name}_true": truth}

    @property
    def result_columns(self) -> tuple[str, ...]:
        """Of the answer and of the target."""
        return (*self.answer_columns, *self.truth_cells(None))

    def reference(self) -> Mapping[str, float]:
        """Numbers that the fitted task's scores refer to, such as the training median; none by default."""
        return {}

    def out_of_fold(self, cases: Sequence[ScoredCase]) -> Sequence[ScoredCase]:
        """The cases with what the *other* folds' predictions say of each, such as a threshold; by default nothing.

        Args:
            cases: all labelled cases of all folds, each predicted by the model that did not see it.
        """
        return cases

    def among_themselves(self, cases: Sequence[ScoredCase]) -> Sequence[ScoredCase]:
        """The cases with what their scores ask of a cohort, such as how long it was followed, learned from these cases.

        That is how cases are scored that do not come from where the training fold did; by default nothing is asked.

        Args:
            cases: all labelled cases of one cohort.
        """
        return cases

    def result_scores(self, result: Result, truth: Any) -> dict[str, float | None]:
        """Per-case metrics, such as the absolute error, asked of the model's own fitted task; none by default."""
        return {}
