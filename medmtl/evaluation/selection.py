"""What is scored: which cases, by whose models, against which labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmtl.build import build_tasks
from medmtl.checking import Checked
from medmtl.data.case import Case
from medmtl.data.split import Splits
from medmtl.errors import InputError
from medmtl.evaluation.site import Learned
from medmtl.planning.shown_labels import shown_labels
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import CaseTask, Task

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Group:
    """Cases that one model predicts, or several together.

    Attributes:
        fold: the fold's number, or ``none``; of several models the first one's.
        models: their runs.
        case_ids: no case stands in two groups.
    """

    fold: int | str
    models: Sequence[RunFolder]
    case_ids: Sequence[str]

    @property
    def fold_number(self) -> int:
        """The fold as a number; 0 for ``none``."""
        return fold_number(self.fold)

    @property
    def fold_cell(self) -> int | str:
        """The fold as ``cases.csv`` names it; ``all`` where several models answer together, by their average."""
        return self.fold if len(self.models) == 1 else "all"

    def fitted(self) -> dict[str, Task]:
        """The tasks with what the model's training fold taught; of several models, the first one's."""
        return build_tasks(self.models[0].load_config(), self.models[0].load_plan().tasks)

    def reference(self) -> dict[str, dict[str, float]]:
        """Task -> numbers that scores refer to; of several models, which answer by their average, the average."""
        found: dict[str, dict[str, float]] = {}
        for run in self.models:
            for name, task in build_tasks(run.load_config(), run.load_plan().tasks).items():
                if isinstance(task, CaseTask):
                    numbers = found.setdefault(name, {})
                    for key, value in task.reference().items():
                        numbers[key] = numbers.get(key, 0.0) + value / len(self.models)
        return found


@dataclass(frozen=True)
class Selection:
    """What is scored.

    Attributes:
        split: ``val``, ``test`` or ``train``; ``all`` of another cohort.
        folds: of the runs.
        tasks: every task of the run, fitted; a result may need another task's mask.
        readers: the tasks that are scored, as they read the labels: the run's own, or those of another cohort.
        groups: who predicts what.
        cases: case id -> case.
        truths: task -> case id -> target, for labelled cases.
        learned: task -> what each fold's model was trained on; empty where that is not known.
        facts: further keys of ``metrics.json``.
        checked: another cohort, whose findings are kept with the evaluation; None for the run's own.
        config: the other cohort's configuration; None for the run's own.
        tested: how many cases of the runs' test part are among them.
        to_first: whether the other cohort's channels are brought to one grid.
    """

    split: str
    folds: tuple[int | str, ...]
    tasks: Mapping[str, Task]
    readers: Mapping[str, Task]
    groups: Sequence[Group]
    cases: Mapping[str, Case]
    truths: Mapping[str, Mapping[str, Any]]
    learned: Mapping[str, Learned] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    checked: Checked | None = None
    config: Path | None = None
    tested: int = 0
    to_first: bool = False

    @property
    def total(self) -> int:
        """Number of cases."""
        return sum(len(group.case_ids) for group in self.groups)

    @property
    def scored(self) -> dict[str, Task]:
        """The fitted tasks that are scored."""
        return {name: self.tasks[name] for name in self.tasks if name in self.readers}

    @property
    def is_out_of_fold(self) -> bool:
        """Whether several models predicted, each what it did not see."""
        return self.split == "val" and len(self.groups) > 1


def parts_of(runs: Sequence[RunFolder]) -> list[str]:
    """The splits that hold a case: a run on all cases has no ``val``, and not every cohort has a ``test``."""
    return [split for split in SPLITS if any(group.case_ids for group in groups_of(runs, split))]


def groups_of(runs: Sequence[RunFolder], split: str) -> list[Group]:
    """Who predicts what of the run's own cohort; empty where the split holds no case.

    Each case is predicted once: by the model that did not see it (``val``), by the first that did (``train``), or by
    the average of all (``test``).

    Raises:
        InputError: if there is no such split.
    """
    if split not in SPLITS:
        raise InputError(f"no split is called {split!r}; known: {', '.join(SPLITS)}")
    splits, folds = runs[0].load_splits(), folds_of(runs)
    if split == "test":
        return [Group(folds[0], runs, splits.test)] if splits.test else []
    groups: list[Group] = []
    taken: set[str] = set()
    for fold, run in zip(folds, runs, strict=True):
        case_ids = [case_id for case_id in _members(splits, fold, split) if case_id not in taken]
        taken.update(case_ids)
        if case_ids:
            groups.append(Group(fold, [run], case_ids))
    return groups


def learned_by(
    runs: Sequence[RunFolder], split: str, cases: Sequence[Case], truths: Mapping[str, Mapping[str, Any]]
) -> dict[str, Learned]:
    """Task -> fold that predicted -> site and target of the labelled cases that its models were trained on."""
    truths = shown_labels(runs[0].load_plan(), cases, truths)
    splits, folds = runs[0].load_splits(), folds_of(runs)
    trained = {fold_number(fold): _members(splits, fold, "train") for fold in folds}
    if split == "test":  # every model answers, under the first fold's number
        trained = {fold_number(folds[0]): tuple(sorted(set().union(*trained.values())))}
    site = {case.case_id: case.site for case in cases}
    return {
        name: {fold: [(site[i], targets[i]) for i in case_ids if i in targets] for fold, case_ids in trained.items()}
        for name, targets in truths.items()
    }


def folds_of(runs: Sequence[RunFolder]) -> tuple[int | str, ...]:
    """The fold of each run."""
    return tuple(run.load_manifest()["fold"] for run in runs)


def fold_number(fold: int | str) -> int:
    """A fold as a number; 0 for ``none``."""
    return fold if isinstance(fold, int) else 0


def _members(splits: Splits, fold: int | str, split: str) -> tuple[str, ...]:
    if isinstance(fold, int):
        return splits.folds[fold].val if split == "val" else splits.folds[fold].train
    # a file of folds need not name every case in each of them
    everybody = dict.fromkeys(case_id for one in splits.folds for case_id in (*one.train, *one.val))
    return tuple(everybody) if split == "train" else ()
