"""One number of ``metrics.json`` with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

NO_CASE = "no labelled case"

Better = Literal["higher", "lower", "zero", "one", "nominal"]


@dataclass(frozen=True)
class Estimate:
    """A metric over cases.

    Attributes:
        value: the point estimate, or None where it cannot be computed; never NaN.
        better: which direction is better; ``nominal`` is the level that a predicted interval claims, 0.95.
        unit: such as ``mm`` or ``ml``; None for a pure number.
        n: cases it rests on.
        ci95: two-sided 95 % interval, or None with ``why`` saying why there is none.
        ci: how the interval was made, such as ``bca`` or ``delong-logit``.
        why: why ``value`` or ``ci95`` is missing.
        extra: further figures that stand beside the value, such as ``n_missed`` or ``threshold``.
    """

    value: float | None
    better: Better
    unit: str | None = None
    n: int = 0
    ci95: tuple[float, float] | None = None
    ci: str | None = None
    why: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"an estimate must be finite or None, got {self.value}")
        if self.value is None and not self.why:
            raise ValueError("an estimate without a value must say why")

    def to_json(self) -> dict[str, Any]:
        """As written to ``metrics.json``; a missing value is ``{"value": null, "why": ...}`` plus counts."""
        if self.value is None:
            return {"value": None, "why": self.why, "n": self.n, **self.extra}
        body: dict[str, Any] = {
            "value": self.value,
            "ci95": list(self.ci95) if self.ci95 is not None else None,
            "ci": self.ci,
            "n": self.n,
            "better": self.better,
            "unit": self.unit,
        }
        if self.why:
            body["why"] = self.why
        return {**body, **self.extra}
