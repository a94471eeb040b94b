"""How difficult a synthetic cohort is: every constant that differs between ``easy`` and ``hard``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Triple = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Preset:
    """The constants of a difficulty. ``docs/synthetic.md`` gives the formulas they enter.

    Attributes:
        field_mm: extent of every scan along x, y and z.
        spacing_mm: nominal voxel size along x, y and z.
        diameter_mm: smallest and largest lesion: the diameter of the ball of equal volume.
        contrast: range of a lesion's difference from soft tissue, which has intensity 0.5.
        polarity: parameter a of the grade's Beta(a, a): below 1 most lesions are clearly one class or the other.
        spread: standard deviation of a lesion's traits about its grade.
        slope: steepness of the malignancy's logistic curve.
        texture: standard deviation of the tissue's texture.
        vessel: brightness of the vessels, which are distractors.
        noise: standard deviation of the scanner's noise.
        risk: points that a lesion's presence, its size, malignancy and 12 years of age add to the risk.
        risk_noise: standard deviation of the risk about its mean.
    """

    field_mm: Triple
    spacing_mm: Triple
    diameter_mm: Range
    contrast: Range
    polarity: float
    spread: float
    slope: float
    texture: float
    vessel: float
    noise: float
    risk: tuple[float, float, float, float]
    risk_noise: float


PresetName = Literal["easy", "hard"]

PRESETS: dict[PresetName, Preset] = {
    "easy": Preset(
        field_mm=(30.0, 30.0, 33.0),
        spacing_mm=(1.0, 1.0, 1.5),
        diameter_mm=(7.0, 13.0),
        contrast=(0.8, 1.2),
        polarity=0.4,
        spread=0.1,
        slope=12.0,
        texture=0.06,
        vessel=0.25,
        noise=0.04,
        risk=(15.0, 30.0, 25.0, 2.0),
        risk_noise=3.0,
    ),
    "hard": Preset(
        field_mm=(35.0, 35.0, 40.0),
        spacing_mm=(1.0, 1.0, 1.5),
        diameter_mm=(7.0, 15.0),
        contrast=(0.65, 1.05),
        polarity=0.7,
        spread=0.18,
        slope=10.0,
        texture=0.075,
        vessel=0.28,
        noise=0.055,
        risk=(0.0, 12.0, 48.0, 3.0),
        risk_noise=5.0,
    ),
}
