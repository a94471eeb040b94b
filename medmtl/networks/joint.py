"""A batch that several processes hold together, for the layers whose answer depends on more than one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass
class JointBatch:
    """Which samples of the joint batch this process holds; set before each forward pass.

    Attributes:
        sum: over all processes.
        samples: of the joint batch.
        rows: of these, the ones that lie here.
    """

    sum: Callable[[torch.Tensor], torch.Tensor]
    samples: int = 0
    rows: Sequence[int] = ()


class Dropout(nn.Dropout):
    """Dropout of rows, one per sample; of several processes each draws the mask of all rows and takes its own.

    So a mask does not depend on how many processes share the batch. Each must have the same random state.

    Attributes:
        joint: the batch of all processes; None for one process.
    """

    joint: JointBatch | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, width) -> (B, width)."""
        if self.joint is None or not self.training:
            return super().forward(input)
        every = functional.dropout(input.new_ones(self.joint.samples, input.shape[1]), self.p)
        return input * every[list(self.joint.rows)]


class WholeDropout(Dropout):
    """Dropout of a sample's row as a whole."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, width) -> (B, width)."""
        return input * super().forward(input.new_ones(len(input), 1))
