"""Cases of which only some labels were annotated: the cell that names them, and the note of it in a target.

Every voxel of such a target carries the note, so that any part of it, at any resolution, says what may hide in its
background. Without a note a target holds class indices as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from medmtl.data.cell import is_missing_word
from medmtl.spelling import did_you_mean
from medmtl.tasks.base import CellError

MOST_LABELS = 57  # of which an int64 tells every set apart, beside the class index
SEPARATOR = re.compile(r"[\s;]+")


def read_unannotated(cell: str | None, labels: Sequence[str], column: str) -> frozenset[str]:
    """The labels that a cell does not name; none for an empty cell, which stands for all.

    Args:
        cell: names of the annotated labels, separated by blanks or ``;``.
        labels: all declared names.
        column: of the cell.

    Raises:
        CellError: B116 for a word that means "missing", B112 for any other text that is no label.
    """
    if cell is None:
        return frozenset()
    named = [name for name in SEPARATOR.split(cell) if name]
    unknown = next((name for name in named if name not in labels), None)
    if unknown is None and named:
        return frozenset(labels) - set(named)
    code, fix = "B112", "name declared labels, separated by a space or ;"
    if is_missing_word(cell):
        code, fix = "B116", "empty the cell if all labels were annotated, or the mask's cell if none was"
    elif unknown is not None and (hint := did_you_mean(unknown, labels)):
        fix = f"{hint} Names must match exactly"
    raise CellError(code, column=column, found=cell, expected=f"some of {' '.join(labels)}", fix=fix)


def dtype_with_note(indices: int, labels: int) -> type[np.integer[Any]]:
    """The smallest of uint8, int32 and int64 that holds every class index with every note.

    Args:
        indices: how many class indices there are.
        labels: how many labels, at most ``MOST_LABELS``.
    """
    largest = (indices << labels) - 1
    return next(dtype for dtype in (np.uint8, np.int32, np.int64) if largest <= np.iinfo(dtype).max)


def with_note(target: torch.Tensor, hidden: Collection[int], indices: int) -> torch.Tensor:
    """A target with the note of the labels that may hide in its background.

    Args:
        target: class indices below ``indices``, of the type of :func:`dtype_with_note`.
        hidden: places of these labels among the declared ones.
        indices: as there.
    """
    return target + indices * sum(1 << place for place in hidden)


def without_note(target_BDHW: torch.Tensor, indices: int, labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class indices, and per sample and label whether it may hide in the background, (B, labels) bool."""
    note_B = target_BDHW[:, 0, 0, 0].long() // indices
    places = torch.arange(labels, device=note_B.device)
    return target_BDHW % indices, ((note_B[:, None] >> places) & 1).bool()
