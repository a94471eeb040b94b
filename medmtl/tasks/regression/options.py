"""What a regression's configuration says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medmtl.tasks.pooled import PooledOptions
from medmtl.tasks.regression.derived import AnyDerivation, Derivation, VolumeOf

Finite = Annotated[float, Field(allow_inf_nan=False)]


class RegressionOptions(PooledOptions):
    """Options of a regression.

    Attributes:
        column: holds the value; an empty cell means that the case is not labelled.
        unit: of the values, such as ``mm3`` or ``"%"``; a size in mm, mm3 or ml is sensitive to scaling.
        range: values outside it are refused in the table, and predictions are clipped to it, which is counted.
        transform: scale on which the value is learned: as it is, its logarithm (values above 0), or the logit of its
            place in ``range`` (values strictly inside).
        loss: ``huber`` learns a value; ``beta_nll`` learns a normal distribution, so that each answer carries its own
            95 % interval; see :func:`medmtl.losses.beta_nll.beta_nll_loss`. The latter can be zero or negative, which
            some weightings refuse.
        huber_delta: of ``loss: huber``; residual, in interquartile ranges, from which the loss grows linearly.
        derived_from: the value is a function of masks of other tasks: ``TASK`` or ``TASK/LABEL`` for a volume in mm3 or
            ml, ``{measure: volume, of: [TASK/LABEL, ...]}``, ``{measure: fraction, part: TASK/LABEL, whole: TASK}`` or
            ``{measure: ejection_fraction, diastole: TASK/LABEL, systole: TASK/LABEL}``; a task alone means its whole
            foreground. What the *predicted* masks give is then scored beside the head.
    """

    column: str
    unit: str | None = None
    range: tuple[Finite, Finite] | None = None
    transform: Literal["none", "log", "logit"] = "none"
    loss: Literal["huber", "beta_nll"] = "huber"
    huber_delta: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    derived_from: str | AnyDerivation | None = None

    @model_validator(mode="after")
    def _range_is_sound(self) -> RegressionOptions:
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range must be [lowest, highest], got {list(self.range)}")
        if self.transform == "logit" and self.range is None:
            raise ValueError("transform: logit needs a range")
        if self.loss != "huber" and self.huber_delta != 1.0:
            raise ValueError(f"huber_delta belongs to loss: huber, not to loss: {self.loss}; remove one of the two")
        return self

    @model_validator(mode="after")
    def _derivation_is_sound(self) -> RegressionOptions:
        if isinstance(self.derived_from, str) and self.unit not in VolumeOf.factors:
            raise ValueError(
                f"derived_from: {self.derived_from} alone means a volume in mm3 or ml; for another measure write, for "
                "example, {measure: fraction, part: TASK/LABEL, whole: TASK} or "
                "{measure: ejection_fraction, diastole: TASK/LABEL, systole: TASK/LABEL}"
            )
        derivation = self.derivation
        if derivation is not None:
            derivation.factor(self.unit)
        return self

    @property
    def derivation(self) -> Derivation | None:
        """``derived_from`` in full."""
        if isinstance(self.derived_from, str):
            return VolumeOf(of=(self.derived_from,))
        return self.derived_from
