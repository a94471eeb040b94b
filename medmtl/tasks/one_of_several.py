"""What the kinds share whose answer is one of a list of classes per case, with the probability of each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from medmtl.data.case import Case
from medmtl.metrics.figures import Figure
from medmtl.tasks.base import Cell, Numbers, Result, ScoredCase, Task
from medmtl.tasks.class_cell import read_class
from medmtl.tasks.label_words import counted
from medmtl.tasks.pooled import PooledOptions, PooledTask
from medmtl.tasks.ranked import Ranked, ranked_figures


class OneOfSeveralOptions(PooledOptions):
    """Options of a kind whose column holds one of a list of classes.

    Attributes:
        column: holds the class as text; an empty cell means that the case is not labelled.
    """

    column: str


@dataclass(frozen=True)
class OneOfSeveralResult(Result):
    """A class with the probability of each.

    Attributes:
        label: the class that is called.
        probabilities: class -> probability, in the declared order.
    """

    label: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME`` and ``NAME_p_CLASS`` per class."""
        return {name: self.label, **{f"{name}_p_{key}": value for key, value in self.probabilities.items()}}


class OneOfSeveral(PooledTask):
    """A task whose column holds one of :attr:`classes`, and whose activation is the probability of each.

    Attributes:
        classes_option: the option that declares the classes.
    """

    Options: ClassVar[type[OneOfSeveralOptions]]
    options: OneOfSeveralOptions
    default_sensitivity = ("crop",)
    ranking_metric = "auc"
    classes_option: ClassVar[str]

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The classes, in the declared order."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the class."""
        return (self.options.column,)

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`OneOfSeveralResult.cells`."""
        return (self.name, *(f"{self.name}_p_{key}" for key in self.classes))

    def read(self, case: Case) -> str | None:
        """The class of a case, exactly as declared.

        Raises:
            CellError: see :func:`medmtl.tasks.class_cell.read_class`.
        """
        return read_class(case.cells[self.options.column], self.classes, self.options.column)

    def in_words(self, truths: Sequence[str]) -> str:
        """Cases of each class."""
        return counted(truths, self.classes)

    def strata(self, truths: Mapping[str, Any]) -> dict[str, str]:
        """Each case's class."""
        return dict(truths)

    def same_target(self, other: Task) -> None:
        """The classes must be the same, in the same order: the last of two is the positive one."""
        super().same_target(other)
        assert isinstance(other, OneOfSeveral)
        if other.classes != self.classes:
            raise ValueError(
                f"its {self.classes_option} are {', '.join(other.classes)}, and the model's are "
                f"{', '.join(self.classes)}"
            )

    def encode(self, truth: str | None) -> torch.Tensor:
        """The index of the class, int64, shape ()."""
        return torch.tensor(0 if truth is None else self.classes.index(truth))

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[Numbers, Numbers]:
        """Expected and true class index; for two classes the probability of the last one, and whether it is."""
        return float(activation_K @ torch.arange(len(activation_K)).to(activation_K)), float(target)

    def constant_result(self, truths: Sequence[str]) -> Result:
        """The share of each class as its probability."""
        return self.result(torch.tensor([truths.count(name) / len(truths) for name in self.classes]), {})

    @abstractmethod
    def ranked(self, cases: Sequence[ScoredCase]) -> list[Ranked]:
        """What the cases' probabilities rank."""

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """ROC curves per fold, and calibration over all folds where there are cases enough, of what is ranked."""
        return ranked_figures(self.name, self.ranked(cases))

    def arrays(
        self, cases: Sequence[ScoredCase]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Of N cases the index of the class (N,), the probabilities (N, K), and the fold (N,)."""
        class_N = np.array([self.classes.index(case.truth) for case in cases], dtype=np.intp)
        results = [case.result for case in cases]
        rows = [list(r.probabilities.values()) for r in results if isinstance(r, OneOfSeveralResult)]
        fold_N = np.array([case.fold for case in cases], dtype=np.intp)
        return class_N, np.array(rows, dtype=np.float64).reshape(-1, len(self.classes)), fold_N
