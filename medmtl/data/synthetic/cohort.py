"""Write a synthetic cohort: the table, the scans, the masks, a configuration and the truth behind each case."""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from numbers import Integral
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medmtl.data.synthetic.anatomy import Scan, draw_scan
from medmtl.data.synthetic.lesion import Lesion
from medmtl.data.synthetic.preset import PRESETS, PresetName
from medmtl.data.synthetic.subject import Subject, draw_missing, draw_subjects
from medmtl.disk import refuse_file
from medmtl.errors import InputError
from medmtl.rng import generator

MIN_CASES = 10
MIN_CASES_FIVE_FOLDS = 25
CLASSES = ("benign", "malignant")
ORIENTATIONS = ("RAS", "LPS", "LAS", "RSA", "PIR", "ASL")

CONFIG = """\
# medmtl train config.yaml --out run
#
# A synthetic tumour cohort: --cases {cases} --seed {seed} --preset {preset} --channels {channels}
# docs/synthetic.md says what its columns follow from; latents.csv holds the truth behind each case.
schema: 1
cohort:
  table: cohort.csv
  case: case_id
  patient: patient_id
  site: site
  channels: {{{channel_map}}}
  missing: [""]
tasks:
  lesion:     {{kind: segmentation, column: lesion, labels: {{lesion: 1}}}}
  malignancy: {{kind: classification, column: malignancy, classes: [benign, malignant]}}   # of the lesion, if any
  risk:       {{kind: regression, column: risk, unit: points, range: [0, 100], sensitive_to: [scale, crop]}}
  # survival: {{kind: survival, time: time, event: event, horizon: 1095}}   # 3 years
network:   {{kind: unet}}
sharing:   {{kind: hard}}
weighting: {{kind: equal}}
augmentation: {{flips: [x, y, z]}}   # the generator knows no left or right
plan:      {{batch: 4}}
split:     {{folds: {folds}, seed: {seed}}}
training:  {{steps: 450, seed: {seed}}}
"""


def write_cohort(out: Path, *, cases: int = 60, seed: int = 0, preset: PresetName = "easy", channels: int = 1) -> Path:
    """Write ``cohort.csv``, ``images/``, ``labels/``, ``config.yaml`` and ``latents.csv``.

    Equal arguments give equal bytes. ``docs/synthetic.md`` holds the formulas.

    Args:
        out: a folder that is empty or does not exist yet.
        cases: at least 10.
        seed: 0 to 2**32 - 1; also the seed of the split and the training in ``config.yaml``.
        preset: ``easy`` for a demonstration; ``hard`` leaves room between a plain model and the oracle.
        channels: images per case; a lesion's contrast differs between them.

    Returns:
        The path of ``cohort.csv``.

    Raises:
        InputError: if an argument is out of range, or ``out`` is a file or holds anything.
    """
    _check_arguments(out, cases, seed, preset, channels)
    constants = PRESETS[preset]
    subjects = draw_subjects(cases, seed, constants)
    missing = draw_missing(subjects, seed)
    (out / "images").mkdir(parents=True)
    (out / "labels").mkdir()
    digits = max(3, len(str(cases - 1)))
    rows = []
    for subject in subjects:
        name = f"case_{subject.index:0{digits}}"
        kept = {column: subject.index not in cases_without for column, cases_without in missing.items()}
        rng = generator(seed, "case", subject.index, "scan")
        scan = draw_scan(constants, subject.lesion, subject.site, channels, rng)
        files = _write_scan(out, name, scan, generator(seed, "case", subject.index, "grid"), with_mask=kept["lesion"])
        rows.append(_row(subject, name, files, kept))
    latents = [_latents(subject, row["case_id"]) for subject, row in zip(subjects, rows, strict=True)]
    _write_csv(out / "latents.csv", latents)
    config = CONFIG.format(
        cases=cases,
        seed=seed,
        preset=preset,
        channels=channels,
        channel_map=", ".join(f"{name}: {name}" for name in _channel_names(channels)),
        folds=5 if cases >= MIN_CASES_FIVE_FOLDS else 2,
    )
    (out / "config.yaml").write_text(config, encoding="utf-8")
    return _write_csv(out / "cohort.csv", rows)


def _check_arguments(out: Path, cases: int, seed: int, preset: str, channels: int) -> None:
    for name, value in (("cases", cases), ("seed", seed), ("channels", channels)):
        if not isinstance(value, Integral):
            raise InputError(f"{name} must be a whole number, found {value!r}")
    if cases < MIN_CASES:
        raise InputError(f"a synthetic cohort needs at least {MIN_CASES} cases, found {cases}")
    if channels < 1:
        raise InputError(f"a synthetic cohort needs at least 1 channel, found {channels}")
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed must lie between 0 and {2**32 - 1}, found {seed}")
    if preset not in PRESETS:
        raise InputError(f"no preset is called {preset!r}; known: {', '.join(PRESETS)}")
    refuse_filled(out)


def refuse_filled(out: Path) -> None:
    """Refuse a file and a folder that holds anything.

    Raises:
        InputError: if ``out`` is one of these.
    """
    refuse_file(out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; name a new or an empty folder")


def _channel_names(channels: int) -> list[str]:
    return ["image"] if channels == 1 else [f"image_{channel}" for channel in range(channels)]


def _write_scan(out: Path, name: str, scan: Scan, rng: np.random.Generator, *, with_mask: bool) -> dict[str, str]:
    """Write the files of a case in one of several array orientations; column -> path relative to ``out``."""
    affine = np.diag([*scan.spacing_mm, 1.0])
    affine[:3, 3] = np.round(rng.uniform(-100, 100, 3), 1)
    orientation = str(rng.choice(ORIENTATIONS))
    arrays: dict[str, tuple[str, npt.NDArray[Any]]] = {}
    for column, channel in zip(_channel_names(len(scan.channels)), scan.channels, strict=True):
        arrays[column] = (f"images/{name}{column.removeprefix('image')}.nii.gz", channel)
    if with_mask:
        arrays["lesion"] = (f"labels/{name}.nii.gz", scan.mask)
    for path, array in arrays.values():
        (out / path).write_bytes(_nifti_bytes(array, affine, orientation))
    return {column: path for column, (path, _) in arrays.items()}


def _nifti_bytes(array: npt.NDArray[Any], affine: npt.NDArray[np.float64], orientation: str) -> bytes:
    image = nib.Nifti1Image(array, affine)
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    image = image.as_reoriented(change)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    # gzip's header holds the time of writing, which would make equal cohorts differ
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _row(subject: Subject, name: str, files: Mapping[str, str], kept: Mapping[str, bool]) -> dict[str, object]:
    images = {column: path for column, path in files.items() if column != "lesion"}
    return {
        "case_id": name,
        "patient_id": name.replace("case", "patient"),
        "site": subject.site,
        **images,
        "lesion": files.get("lesion", ""),
        "malignancy": _class(subject) if kept["malignancy"] else "",
        "risk": f"{subject.risk:.1f}" if kept["risk"] else "",
        "age": subject.age,
        "time": subject.days if kept["survival"] else "",
        "event": int(subject.event) if kept["survival"] else "",
    }


def _class(subject: Subject) -> str:
    return "" if subject.malignant is None else CLASSES[subject.malignant]


def _latents(subject: Subject, name: object) -> dict[str, object]:
    """The whole truth of a case, nothing missing, and the oracle's scores."""
    lesion = subject.lesion
    traits = dict.fromkeys((field.name for field in fields(Lesion)), None) if lesion is None else asdict(lesion)
    return {
        "case_id": name,
        "site": subject.site,
        **{key: "" if value is None else f"{value:.6f}" for key, value in traits.items()},
        "volume_ml": f"{lesion.volume_mm3 / 1000 if lesion else 0.0:.6f}",
        "age": subject.age,
        "malignancy": _class(subject),
        "risk": f"{subject.risk:.6f}",
        "survival_days": f"{subject.survival_days:.6f}",
        "follow_up_days": f"{subject.follow_up_days:.6f}",
        "oracle_malignancy": "" if subject.malignancy_probability is None else f"{subject.malignancy_probability:.6f}",
        "oracle_risk": f"{subject.risk_mean:.6f}",
        "oracle_log_hazard": f"{subject.log_hazard:.6f}",
    }


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
