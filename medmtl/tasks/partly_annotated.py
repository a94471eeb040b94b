"""What a task with a label per voxel says of cases of which only some labels were annotated."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from medmtl.data.case import Case


class PartlyAnnotated:
    """By default every label of every labelled case was annotated. A kind that knows better overrides all four."""

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

    def noted(self, target: torch.Tensor, case: Case) -> torch.Tensor:
        """The target of one sample, as ``encode`` gives it, with a note of these labels for the loss; of equal type."""
        return target

    def known_scores(self, scores: Mapping[str, float | None], unannotated: Collection[str]) -> dict[str, float | None]:
        """What ``mask_scores`` gives, without a value where one needs these labels."""
        return dict(scores)
