"""What follows from a lesion: its class, a risk and a survival time, each with what an oracle knows of it.

An oracle sees the traits and the age but not the noise: it is the most that any model can reach.
"""

from __future__ import annotations

import math

import numpy as np

from medmtl.data.synthetic.lesion import Lesion
from medmtl.data.synthetic.preset import Preset

RISK_BASE = 15.0
LOG_HAZARD = (0.3, 1.2, 1.2, 0.3)
WEIBULL_SHAPE = 1.3
WEIBULL_SCALE_DAYS = 3000.0
FOLLOW_UP_DAYS = (300.0, 2500.0)


def malignancy_probability(preset: Preset, lesion: Lesion) -> float:
    """Logistic in the mean of the lesion's elongation, spiculation and heterogeneity, one half at 0.5."""
    grade = (lesion.elongation + lesion.spiculation + lesion.heterogeneity) / 3
    return 1 / (1 + math.exp(-preset.slope * (grade - 0.5)))


def risk_mean(preset: Preset, lesion: Lesion | None, malignancy: float, age: float) -> float:
    """Expected risk in points.

    Args:
        preset: holds the weights.
        lesion: None for a case without one.
        malignancy: 0 or 1, or its probability for the oracle's value; the risk is linear in it.
        age: years.
    """
    return RISK_BASE + _linear(preset.risk, lesion, malignancy, age)


def log_hazard(lesion: Lesion | None, malignancy: float, age: float) -> float:
    """Logarithm of the hazard relative to a 60-year-old without a lesion; arguments as for the risk."""
    return _linear(LOG_HAZARD, lesion, malignancy, age)


def draw_risk(mean: float, preset: Preset, rng: np.random.Generator) -> float:
    """A risk about its mean, within 0 to 100 points."""
    return float(np.clip(mean + rng.normal(0, preset.risk_noise), 0, 100))


def draw_survival_days(log_hazard: float, rng: np.random.Generator) -> float:
    """A Weibull time of death under proportional hazards: scale * (E / exp(log_hazard)) ** (1 / shape), E ~ Exp(1)."""
    return float(WEIBULL_SCALE_DAYS * (rng.exponential() * math.exp(-log_hazard)) ** (1 / WEIBULL_SHAPE))


def draw_follow_up_days(rng: np.random.Generator) -> float:
    """The length of observation, independent of the patient: a death after it is censored."""
    return float(rng.uniform(*FOLLOW_UP_DAYS))


def _linear(weights: tuple[float, float, float, float], lesion: Lesion | None, malignancy: float, age: float) -> float:
    presence, size, malignant, older = weights
    value = older * (age - 60) / 12
    return value if lesion is None else value + presence + size * lesion.size + malignant * malignancy
