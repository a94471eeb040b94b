"""What is taken from torchjd; nothing else imports it, because its interface changes between minor versions.

It is given a small float64 matrix on the CPU, never a module: its state is not keyed by task and its solvers stop at
absolute tolerances, so what is called here keeps none, and Gram matrices have a trace of 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torchjd.aggregation import (
    DualProjWeighting,
    GradDrop,
    PCGradWeighting,
    UPGradWeighting,
    Weighting,
)
from torchjd.linalg import DualConeProjector, PSDMatrix

from medmtl.weighting.quadratic import Array, dual_cone, unit_rows


class _Projector(DualConeProjector):
    """In place of torchjd's own, which needs a solver under the GPL and gives up on small gradients."""

    def __call__(self, U: torch.Tensor, G: PSDMatrix) -> torch.Tensor:
        units, lengths_T = unit_rows(G.numpy())
        return torch.from_numpy(np.apply_along_axis(lambda u: dual_cone(units, lengths_T, u), -1, U.numpy()))


def pcgrad(gram_TT: Array) -> Array:
    """PCGrad's weights; draws one order per task from torch's generator."""
    return _call(PCGradWeighting(), gram_TT)


def upgrad(gram_TT: Array) -> Array:
    """UPGrad's weights."""
    return _call(UPGradWeighting(projector=_Projector()), gram_TT)


def dualproj(gram_TT: Array) -> Array:
    """DualProj's weights."""
    return _call(DualProjWeighting(projector=_Projector()), gram_TT)


def graddrop(rows_TN: torch.Tensor, leak: float) -> torch.Tensor:
    """GradDrop's aggregate of rows, (N,); draws one number per column."""
    return GradDrop(leak=torch.full_like(rows_TN[:, 0], leak))(rows_TN)


def _call(method: Weighting[PSDMatrix], gram_TT: Array) -> Array:
    weights: Array = method(torch.from_numpy(gram_TT / np.trace(gram_TT))).numpy()
    return weights
