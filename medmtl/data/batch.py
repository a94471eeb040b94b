"""What one training step works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from medmtl.data.case import named


@dataclass(frozen=True)
class ViewBatch:
    """Samples of one view of the cases.

    Attributes:
        image_BCDHW: float32; D, H, W are the array axes in RAS order (x, y, z). Where a case has several tiles these
            are one after the other, and B counts tiles here alone.
        targets: task -> tensor whose first axis is B; where a sample is not labelled the entry is an arbitrary valid
            value.
        present: task -> bool tensor of shape (B,), True where the sample is labelled; always on the CPU.
        case_ids: B ids, in order.
        rows: their B rows of the table.
        covariates_BN: float32 features of their clinical covariates; N is 0 where no task reads any.
        tiles: images per case.
    """

    image_BCDHW: torch.Tensor
    targets: Mapping[str, torch.Tensor]
    present: Mapping[str, torch.Tensor]
    case_ids: tuple[str, ...]
    rows: tuple[int, ...]
    covariates_BN: torch.Tensor
    tiles: int = 1

    def named(self) -> str:
        """The cases with their rows, for a message."""
        return named(self.case_ids, self.rows)

    def labelled(self) -> tuple[str, ...]:
        """Tasks for which at least one sample is labelled. The others are absent from this step."""
        return tuple(task for task, present_B in self.present.items() if bool(present_B.any()))

    def to(self, device: torch.device) -> ViewBatch:
        """The same samples on another device, but for ``present``: who asks a device has to wait for it."""
        return replace(
            self,
            image_BCDHW=self.image_BCDHW.to(device, non_blocking=True),
            targets={task: target.to(device, non_blocking=True) for task, target in self.targets.items()},
            covariates_BN=self.covariates_BN.to(device, non_blocking=True),
        )

    def pin_memory(self) -> ViewBatch:
        """The same samples in page-locked memory, from which a GPU copies while it computes; called by the loader."""
        return replace(
            self,
            image_BCDHW=self.image_BCDHW.pin_memory(),
            targets={task: target.pin_memory() for task, target in self.targets.items()},
            covariates_BN=self.covariates_BN.pin_memory(),
        )


@dataclass(frozen=True)
class Batch:
    """The views of one step, each with samples of its own.

    Attributes:
        step: the step it was drawn for.
        views: kind of the view -> samples; see :class:`medmtl.data.view.View`.
    """

    step: int
    views: Mapping[str, ViewBatch]

    def named(self) -> str:
        """The cases with their rows, for a message."""
        return "; ".join(dict.fromkeys(view.named() for view in self.views.values()))

    def pin_memory(self) -> Batch:
        """See :meth:`ViewBatch.pin_memory`."""
        return replace(self, views={name: view.pin_memory() for name, view in self.views.items()})
