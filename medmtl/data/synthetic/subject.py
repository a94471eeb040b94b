"""Who is in a synthetic cohort, what became of them, and which of their labels are missing.

Counts are met by quotas that are dealt out at random, not by independent draws: so a cohort of ten has both classes,
both sites, deaths and censored patients, whatever its seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmtl.data.synthetic.anatomy import SITES
from medmtl.data.synthetic.lesion import Lesion, draw_lesion
from medmtl.data.synthetic.outcome import (
    draw_follow_up_days,
    draw_risk,
    draw_survival_days,
    log_hazard,
    malignancy_probability,
    risk_mean,
)
from medmtl.data.synthetic.preset import Preset
from medmtl.rng import generator

LESION_FRACTION = 0.6
MISSING_FRACTION = 0.12


@dataclass(frozen=True)
class Subject:
    """One case before anything is missing.

    Attributes:
        index: position in the cohort, from 0.
        site: a key of :data:`medmtl.data.synthetic.anatomy.SITES`.
        lesion: None where there is none.
        malignant: the class, None without a lesion.
        malignancy_probability: the oracle's score for the class, None without a lesion.
        age: whole years.
        risk, risk_mean: the risk and the oracle's value.
        survival_days, follow_up_days: time of death, and how long the patient was watched.
        log_hazard: the oracle's score for the survival.
    """

    index: int
    site: str
    lesion: Lesion | None
    malignant: bool | None
    malignancy_probability: float | None
    age: int
    risk: float
    risk_mean: float
    survival_days: float
    follow_up_days: float
    log_hazard: float

    @property
    def event(self) -> bool:
        """Whether the death was observed."""
        return self.survival_days <= self.follow_up_days

    @property
    def days(self) -> int:
        """Days until death or the end of follow-up, whichever is first."""
        return math.ceil(min(self.survival_days, self.follow_up_days))


def draw_subjects(cases: int, seed: int, preset: Preset) -> tuple[Subject, ...]:
    """Who is in the cohort; nothing is drawn voxel by voxel.

    Subjects are drawn again until three to seven tenths of them have died within their follow-up: about one in two
    does, so only a small cohort ever needs it.
    """
    lesions = round(LESION_FRACTION * cases)
    kinds = [None] * (cases - lesions) + [False] * (lesions - lesions // 2) + [True] * (lesions // 2)
    sites = list(itertools.islice(itertools.cycle(SITES), cases))
    order = generator(seed, "quotas").permutation(cases).tolist()
    attempt = 0
    while True:
        subjects = tuple(
            _draw_subject(index, sites[place], kinds[place], preset, generator(seed, "case", index, attempt))
            for index, place in enumerate(order)
        )
        if 0.3 * cases <= sum(subject.event for subject in subjects) <= 0.7 * cases:
            return subjects
        attempt += 1


def draw_missing(subjects: Sequence[Subject], seed: int) -> dict[str, frozenset[int]]:
    """Which cases lack which label, by index: a fixed share of each column, whatever the values.

    No case lacks two of mask, risk and survival, so every case is labelled for something.
    """
    rng = generator(seed, "missing")
    count = max(1, round(MISSING_FRACTION * len(subjects)))
    order = rng.permutation(len(subjects)).tolist()
    with_class = [subject.index for subject in subjects if subject.lesion is not None]
    unclassed = max(1, round(MISSING_FRACTION * len(with_class)))
    return {
        "lesion": frozenset(order[:count]),
        "risk": frozenset(order[count : 2 * count]),
        "survival": frozenset(order[2 * count : 3 * count]),
        "malignancy": frozenset(rng.permutation(with_class).tolist()[:unclassed]),
    }


def _draw_subject(index: int, site: str, malignant: bool | None, preset: Preset, rng: np.random.Generator) -> Subject:
    lesion, probability = None, None
    while malignant is not None:
        lesion = draw_lesion(preset, rng)
        probability = malignancy_probability(preset, lesion)
        if (rng.uniform() < probability) == malignant:
            break
    age = int(np.rint(np.clip(rng.normal(60, 12), 25, 90)))
    hazard = log_hazard(lesion, float(malignant or 0), age)
    return Subject(
        index=index,
        site=site,
        lesion=lesion,
        malignant=malignant,
        malignancy_probability=probability,
        age=age,
        risk=draw_risk(risk_mean(preset, lesion, float(malignant or 0), age), preset, rng),
        risk_mean=risk_mean(preset, lesion, probability or 0.0, age),
        survival_days=draw_survival_days(hazard, rng),
        follow_up_days=draw_follow_up_days(rng),
        log_hazard=log_hazard(lesion, probability or 0.0, age),
    )
