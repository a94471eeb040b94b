"""What a user may point a trained model at, as cases without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl import config as configuration
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.cohort import CohortLayout, read_cohort
from medmtl.data.finding import Findings
from medmtl.errors import CohortError, InputError

ENDINGS = (".nii.gz", ".nii")
TABLES = (".csv", ".tsv")


def cases_of(
    inputs: Sequence[str], trained: Config, channels: tuple[str, ...], findings: Findings | None = None
) -> tuple[Case, ...]:
    """Cases from whatever was given.

    Args:
        inputs: one cohort configuration, one table with the trained cohort's columns of case ids and channels,
            ``CHANNEL=FILE`` for one case, or bare image files, one case each, for a one-channel model. Nothing means
            the trained cohort.
        trained: the run's configuration.
        channels: the model's channels.
        findings: gets the faults of a table's rows, which are then left out; None refuses a table with a bad row.

    Raises:
        InputError: if the inputs are none of these.
        CohortError: if a table cannot be read as one, or has a bad row and no ``findings`` to say so; carries them.
    """
    if not inputs:
        return _table(trained.cohort.table, trained, channels, trained.cohort.patient, findings)
    first = Path(inputs[0])
    if len(inputs) == 1 and first.suffix.lower() in (".yaml", ".yml"):
        given = configuration.load(first)
        missing = [name for name in channels if name not in given.cohort.channels]
        if missing:
            raise InputError(f"{first} has no channel {', '.join(missing)}; the model wants {', '.join(channels)}")
        return _table(given.cohort.table, given, channels, given.cohort.case, findings)
    if len(inputs) == 1 and first.suffix.lower() in TABLES:
        return _table(first, trained, channels, trained.cohort.case, findings)
    if len(inputs) == 1 and first.is_dir():
        raise InputError(f"{first} is a folder; DICOM series are not in this version, give NIfTI files or a table")
    named = [item.partition("=") for item in inputs]
    if all(equals and name in channels for name, equals, _ in named):
        names = [name for name, _, _ in named]
        if len(set(names)) < len(names):
            raise InputError(f"a channel is given twice: {', '.join(names)}; one case has one file per channel")
        return (case_of_files({name: Path(file) for name, _, file in named}, channels, _stem(Path(named[0][2]))),)
    if len(channels) > 1:
        wanted = " ".join(f"{name}=FILE" for name in channels)
        raise InputError(f"this model has {len(channels)} channels; give {wanted}")
    cases = tuple(case_of_files({channels[0]: Path(item)}, channels, _stem(Path(item))) for item in inputs)
    twice = {case.case_id for case in cases if sum(other.case_id == case.case_id for other in cases) > 1}
    if twice:
        raise InputError(f"two files would be the case {sorted(twice)[0]!r}; give a table with case ids instead")
    return cases


def case_of_files(images: Mapping[str, str | Path], channels: tuple[str, ...], case_id: str) -> Case:
    """One case from a file per channel.

    Raises:
        InputError: if a channel is missing or unknown, or a file does not exist.
    """
    if set(images) != set(channels):
        raise InputError(f"the model wants the channels {', '.join(channels)}; found {', '.join(images)}")
    paths = {name: Path(images[name]) for name in channels}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{path} is no file")
    return Case(case_id=case_id, patient=case_id, site=None, row=0, images=paths)


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(ending) for ending in ENDINGS if path.name.endswith(ending)), path.name)


def _table(
    table: Path, config: Config, channels: tuple[str, ...], patient: str, findings: Findings | None
) -> tuple[Case, ...]:
    section = config.cohort
    layout = CohortLayout(
        table,
        section.case,
        patient,
        {name: section.channels[name] for name in channels},
        missing=section.missing,
        roots=section.roots,
        # a leak between splits is the harm of a shared image, and prediction has no splits
        allow_shared_image=True,
    )
    found = Findings() if findings is None else findings
    cohort = read_cohort(layout, found)
    rejected = found.rejected()
    if rejected and findings is None:
        raise CohortError(f"{table.name} has {len(rejected)} faults; first: {rejected[0].sentence()}", list(found))
    return cohort.cases
