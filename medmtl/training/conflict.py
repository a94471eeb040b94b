"""How the tasks' gradients lie to each other on the shared weights: a measurement that changes nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from medmtl.weighting.base import Reduce, one_process
from medmtl.weighting.jacobian import Array, gram_of, row_of, trainable

DIGITS = 6  # significant ones that the log keeps


@np.errstate(all="ignore")  # what is not finite, and the cosine with a gradient of zero, is told as None
def measure(
    losses: Mapping[str, torch.Tensor],
    stages: Mapping[str, Sequence[nn.Parameter]],
    scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    reduce: Reduce = one_process,
) -> dict[str, Any] | None:
    """Inner products of the tasks' gradients on the shared parameters, overall and stage by stage.

    Neither ``.grad`` nor the graph is touched, so that the backward pass after it fills what it would have filled. It
    costs one backward pass through the shared part per task, and memory for one gradient of it per task.

    Args:
        losses: scalar loss of each present task, in order.
        stages: name -> shared parameters; none twice. Frozen ones are left out.
        scale: the gradient scaler's factor. It is applied, so that small gradients survive half precision, and divided
            away: the result is that of the losses themselves.
        reduce: adds a loss's gradients over all processes that share the batch.

    Returns:
        ``tasks``, their ``gram`` matrix and ``norms``, ``cosines`` by ``"a|b"``, and ``stages``: name -> cosines; JSON,
        rounded. None stands for what is not finite and for the cosine with a gradient of zero. None altogether where
        there is no loss or every shared parameter is frozen.
    """
    trained = {name: kept for name, held in stages.items() if (kept := trainable(held))}
    parameters = [parameter for held in trained.values() for parameter in held]
    if not losses or not parameters:
        return None
    factor = float(scale(torch.ones((), device=parameters[0].device)))
    rows = [reduce(row_of(scale(loss), parameters, keep=True), parameters) for loss in losses.values()]
    names, first, grams = tuple(losses), 0, {}
    for stage, held in trained.items():
        grams[stage] = gram_of([row[first : first + len(held)] for row in rows]) / factor**2
        first += len(held)
    gram_TT = np.sum(list(grams.values()), axis=0)
    norms = np.sqrt(gram_TT.diagonal()).tolist()
    return {
        "tasks": list(names),
        "gram": [[significant(value) for value in row] for row in gram_TT.tolist()],
        "norms": rounded(dict(zip(names, norms, strict=True))),
        "cosines": _cosines(names, gram_TT),
        "stages": {stage: _cosines(names, gram) for stage, gram in grams.items()},
    }


def rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    """Each value as :func:`significant` gives it."""
    return {name: significant(value) for name, value in values.items()}


def significant(value: float) -> float | None:
    """A number to six significant digits; None where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _cosines(names: Sequence[str], gram_TT: Array) -> dict[str, float | None]:
    norms = np.sqrt(gram_TT.diagonal())
    cosines = (gram_TT / np.outer(norms, norms)).clip(-1, 1).tolist()
    pairs = itertools.combinations(enumerate(names), 2)
    return {f"{one}|{other}": significant(cosines[row][column]) for (row, one), (column, other) in pairs}
