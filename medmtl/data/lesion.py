"""Where the lesion of a case is, for a view that shows what lies around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medmtl.data.crop import Triple


def lesion_centre(foreground_DHW: npt.NDArray[np.bool_]) -> Triple | None:
    """The middle of the box around the largest connected part; None where nothing is marked.

    Parts touch by faces, edges or corners; of equally large ones the first in array order counts.

    Args:
        foreground_DHW: where the lesion is.
    """
    box = bounding_box(foreground_DHW)
    if box is None:
        return None
    parts, count = ndimage.label(foreground_DHW[box], np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(parts.ravel())[1:]
        inner = ndimage.find_objects(parts)[int(sizes.argmax())]
        box = tuple(
            slice(outer.start + part.start, outer.start + part.stop) for outer, part in zip(box, inner, strict=True)
        )
    x, y, z = ((part.start + part.stop - 1) // 2 for part in box)
    return (x, y, z)


def marked(label_DHW: npt.NDArray[Any], ignored: int | None) -> npt.NDArray[np.bool_]:
    """Where a label file shows a lesion: neither background nor what nobody labelled."""
    found: npt.NDArray[np.bool_] = label_DHW != 0
    return found if ignored is None else found & (label_DHW != ignored)


def bounding_box(foreground_DHW: npt.NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds what is marked; None where nothing is."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(foreground_DHW.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
