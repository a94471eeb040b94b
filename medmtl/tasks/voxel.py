"""What kinds provide whose answer is one per voxel: a label, or a value.

A new kind of a family (case, label, map or box task) is one file. A new *family* is more: these ask which one it is.

- ``checking``: ``targets`` (its columns), ``files`` and ``headers`` (its files, one case at a time), ``whole``,
  ``division`` and ``population`` (all of them together), ``expectation`` and ``label_summary`` (what is said of them);
- ``planning``: ``outline`` (what is prepared of its files, by ``data.preparation``), ``network`` (memory),
  ``statistics`` (what it learns), ``case_view`` (whose mask a second view looks for);
- ``training``: ``batches``, ``collapse``;
- ``inference``: ``forward`` and ``mirrors`` (windows and mirror images become one answer), ``predict`` (so do folds),
  ``case_prediction`` (activations become a result), ``write`` (a result becomes files);
- ``evaluation``: ``scored_case`` (reference beside answer), ``score`` and ``selection`` (what is read again and learned
  from other folds), ``site``, ``cohorts``, ``report`` (its pictures).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.networks.features import Guide
from medmtl.tasks.base import Result, Task

UNLABELLED = -1  # of a voxel, where no value of a label file can say so


class VoxelTask(Task):
    """A task with one answer per voxel. Kinds subclass :class:`LabelTask` or :class:`MapTask`."""

    voxel = True

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the output, for the prediction of memory."""

    @abstractmethod
    def decide(self, probability_KDHW: torch.Tensor) -> torch.Tensor:
        """The answer (D, H, W) from probabilities or values; called slab by slab."""

    @abstractmethod
    def result(self, mask: Volume) -> Result:
        """The answer for a case from what was decided, on the case's own grid."""

    @abstractmethod
    def mask_scores(
        self, predicted: npt.NDArray[Any], truth: npt.NDArray[Any], spacing: Sequence[float]
    ) -> dict[str, float | None]:
        """Per-case metrics on the original label's grid."""


class LabelTask(VoxelTask):
    """A task whose answer is a label per voxel: integers, of which none lies between two others.

    By default every label of every labelled case was annotated. A kind that knows better overrides
    ``annotated_column``, ``unannotated``, ``untaught``, ``noted`` and ``known_scores``.
    """

    @property
    def channels(self) -> int:
        """One per legal value."""
        return len(self.legal_values())

    @property
    def ignored_value(self) -> int | None:
        """Value of voxels that nobody labelled: no loss, no score. None where every voxel is labelled."""
        return None

    @abstractmethod
    def legal_values(self) -> frozenset[int]:
        """Values that a label file may hold, besides ``ignored_value``, and all that :meth:`decide` gives."""

    @property
    def named_values(self) -> Mapping[str, int]:
        """Label name -> its value in a label file, for ``check`` to show; by default each value is its own name."""
        return {str(value): value for value in sorted(self.legal_values() - {0})}

    @abstractmethod
    def values_of(self, label: str | None) -> tuple[int, ...]:
        """Label values of a label or region; of the whole foreground for None.

        Raises:
            ValueError: if there is no such label.
        """

    def foreground(self, probability_BKDHW: torch.Tensor) -> torch.Tensor:
        """Probability (B, 1, D, H, W) of anything but background, of what :meth:`activate` gave; 1 - the first's."""
        return 1 - probability_BKDHW[:, :1]

    @property
    def parts(self) -> int:
        """Channels of what :meth:`activate` gives, without that of the background, which is the first one."""
        return self.channels - 1

    def guide(self, output: Any) -> Guide:
        """What heads that are guided by this task read of its output; totals of as many labels as ``parts`` says."""
        probability_BKDHW = self.activate(output)
        return Guide(self.foreground(probability_BKDHW), probability_BKDHW[:, -self.parts :].flatten(2).sum(dim=2))

    def translated(self, array: npt.NDArray[Any], source: LabelTask) -> npt.NDArray[Any]:
        """Label values as this task writes them, from those that ``source``, the same target elsewhere, writes.

        By default both write the same values. A voxel that nobody labelled there is :data:`UNLABELLED`.
        """
        return array

    @property
    def annotated_column(self) -> str | None:
        """Column whose cells :meth:`unannotated` reads, if any."""
        return None

    def unannotated(self, case: Case) -> frozenset[str]:
        """Labels that nobody looked for in a case: its file may call their voxels background.

        Raises:
            CellError: if the cell that says so is not valid.
        """
        return frozenset()

    def untaught(self, case: Case) -> frozenset[str]:
        """Those of the :attr:`parts` of which a labelled case teaches nothing, because of labels nobody looked for.

        A case that teaches none of them is not labelled in training. By default each teaches all.
        """
        return frozenset()

    def noted(self, target: torch.Tensor, case: Case) -> torch.Tensor:
        """The target of one sample, as ``encode`` gives it, with a note of these labels for the loss; of equal type."""
        return target

    def known_scores(self, scores: Mapping[str, float | None], unannotated: Collection[str]) -> dict[str, float | None]:
        """What ``mask_scores`` gives, without a value where one needs these labels."""
        return dict(scores)


class MapTask(VoxelTask):
    """A task whose answer is a value per voxel: a dose, a depth, another modality.

    Its targets are float32 arrays with NaN where no value counts: outside its mask, and outside the case.
    :meth:`fit` gets no files but, per labelled case, quantiles of the values that count.
    """

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def mask_column(self) -> str | None:
        """Column of files that are not 0 where values count; by default all count."""
        return None

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values beyond are refused in files; by default none is."""
        return None
