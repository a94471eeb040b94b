"""Which part of a case its samples show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medmtl.data.crop import Triple, anywhere, centre_start, draw_placed, draw_start, kept_inside, window_around
from medmtl.data.lesion import lesion_centre, marked
from medmtl.data.prepared import Prepared

ViewKind = Literal["case", "patch", "lesion", "tiles"]

CASE_LEVEL: tuple[ViewKind, ...] = ("lesion", "tiles")  # a case's label holds for what these show, wherever it is cut
JITTER = 1 / 8  # of the sample: how far from the reference's middle a lesion crop may lie in training


@dataclass(frozen=True)
class View:
    """Which part of a case its samples show.

    Attributes:
        kind: ``case`` (the whole case, in training anywhere in its sample), ``patch`` (a window anywhere), ``lesion``
            (a window around the largest part of a mask) or ``tiles`` (several windows, which share one answer).
        shape: voxels of a sample; of ``case`` the most, because its samples are as large as the step's cases need.
        tiles: windows per case.
        around: label task whose mask shows the lesion; None where there is none to look for.
        ignored: value of that mask where nobody labelled.
    """

    kind: ViewKind
    shape: Triple
    tiles: int = 1
    around: str | None = None
    ignored: int | None = None

    def shows(self, prepared: Prepared) -> bool:
        """Whether a case has what the view needs: a lesion's view wants its mask, which may be empty."""
        return self.kind != "lesion" or self.around in prepared.labels

    def starts(self, prepared: Prepared, shape: Triple, rng: np.random.Generator | None) -> list[Triple]:
        """Where the windows of a sample begin.

        Args:
            prepared: the case.
            shape: voxels of a window.
            rng: what is drawn depends on it alone; None draws nothing: whole cases and lesions lie in the middle, and
                tiles are spread over the case.
        """
        size = prepared.image_CDHW.shape[1:]
        if self.kind in ("case", "patch"):
            if rng is None:
                return [centre_start(size, shape)]
            placed = self.kind == "case"
            return [draw_placed(rng, size, shape) if placed else draw_start(rng, size, shape, prepared.foreground)]
        centre = self._centre(prepared)
        if self.kind == "lesion":
            return [_near(centre, size, shape, rng) if centre is not None else anywhere(size, shape, rng)]
        first = [] if centre is None else [_near(centre, size, shape, rng, inside=True)]
        rest = self.tiles - len(first)
        if rng is None:
            return [*first, *_spread(size, shape, rest)]
        return [*first, *(anywhere(size, shape, rng) for _ in range(rest))]

    def _centre(self, prepared: Prepared) -> Triple | None:
        label = prepared.labels.get(self.around) if self.around is not None else None
        return None if label is None else lesion_centre(marked(np.asarray(label), self.ignored))


def _near(
    centre: Triple, size: tuple[int, ...], shape: Triple, rng: np.random.Generator | None, *, inside: bool = False
) -> Triple:
    start = window_around(centre, shape)
    if rng is not None:
        reach = [int(n * (3 * JITTER if inside else JITTER)) for n in shape]
        x, y, z = (begin + int(rng.integers(-r, r + 1)) for begin, r in zip(start, reach, strict=True))
        start = (x, y, z)
    return kept_inside(start, size, shape) if inside else start


def _spread(size: tuple[int, ...], shape: Triple, count: int) -> list[Triple]:
    """Windows along the case's diagonal: some of everything, where no mask says what to look at."""
    shares = [(i + 0.5) / count for i in range(count)]
    return [kept_inside((round(s * size[0]), round(s * size[1]), round(s * size[2])), size, shape) for s in shares]
