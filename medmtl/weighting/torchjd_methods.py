"""What is taken from torchjd; nothing else imports it, because its interface changes between minor versions.

It is given tensors, never a module, and what is called here keeps no state: that would not be keyed by task. The Gram
matrix has a trace of 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torchjd.aggregation import GradDrop, PCGradWeighting

from medmtl.weighting.quadratic import Array


def pcgrad(gram_TT: Array) -> Array:
    """PCGrad's weights; draws one order per task from torch's generator."""
    weights: Array = PCGradWeighting()(torch.from_numpy(gram_TT / np.trace(gram_TT))).numpy()
    return weights


def graddrop(rows_TN: torch.Tensor, leak: float) -> torch.Tensor:
    """GradDrop's aggregate of rows, (N,); draws one number per column."""
    return GradDrop(leak=torch.full_like(rows_TN[:, 0], leak))(rows_TN)
