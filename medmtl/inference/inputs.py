"""What a user may point a trained model at, as cases without labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from medmtl import config as configuration
from medmtl.checking.covariates import read_column
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.channels import refuse_other_channels
from medmtl.data.cohort import CohortLayout, read_cohort
from medmtl.data.covariates import CovariateFault, Kinds, parse
from medmtl.data.finding import Findings
from medmtl.data.joined import finding_of, of_cohort
from medmtl.data.table import TABLES
from medmtl.errors import CohortError, InputError
from medmtl.sections import ChannelSection, CohortSection

ENDINGS = (".nii.gz", ".nii")
CONFIGS = (".yaml", ".yml")


def cases_of(
    inputs: Sequence[str],
    trained: Config,
    channels: tuple[str, ...],
    findings: Findings | None = None,
    covariates: Mapping[str, Any] | None = None,
) -> tuple[Case, ...]:
    """Cases from whatever was given.

    Args:
        inputs: one cohort configuration, one table with the trained cohort's columns of case ids, channels and
            covariates, ``CHANNEL=FILE`` for one case, or bare image files, one case each, for a one-channel model.
            Nothing means the trained cohort. Of several bare files one that is absent is a case all the same, which
            fails when it is read.
        trained: the run's configuration.
        channels: the model's channels.
        covariates: name -> value of the model's clinical covariates, for one case given as files.
        findings: gets the faults of a table's rows, which are then left out; None refuses a table with a bad row.

    Raises:
        InputError: if the inputs are none of these.
        CohortError: if a table cannot be read as one, or has a bad row and no ``findings`` to say so; carries them.
    """
    _refuse_several(inputs)
    if covariates and (not inputs or _is_cohort(inputs)):
        raise InputError(
            "covariates are columns of a table; give them apart only for one case given as files", code="B163"
        )
    kinds = trained.used_covariates
    if not inputs:
        return _tables(trained, channels, kinds, findings, persons=True)
    first = Path(inputs[0])
    given = config_of(inputs)
    if given is not None:
        given = matched_channels(given, channels, trained.cohort.optional, first.name)
        same_covariates(trained, given, first.name)
        return _tables(given, channels, kinds, findings)
    if len(inputs) == 1 and first.suffix.lower() in TABLES:
        return _table(first, trained.cohort, channels, kinds, trained.cohort.case, findings)
    if len(inputs) == 1 and os.path.isdir(first):
        raise InputError(f"{first} is a folder; DICOM series are not in this version, give NIfTI files or a table")
    named = [item.partition("=") for item in inputs]
    if all(equals and name in channels for name, equals, _ in named):
        names = [name for name, _, _ in named]
        if len(set(names)) < len(names):
            raise InputError(f"a channel is given twice: {', '.join(names)}; one case has one file per channel")
        files = {name: file for name, _, file in named}
        cells = cells_of(covariates or {}, trained)
        return (case_of_files(files, channels, _stem(Path(named[0][2])), cells, trained.cohort.optional),)
    _refuse_other_names(inputs, channels, trained.cohort.optional)
    if len(inputs) > 1 and trained.used_covariates:
        raise InputError("the model reads clinical covariates; give several cases by a table that has their columns")
    cells = cells_of(covariates or {}, trained)
    if len(inputs) == 1:
        return (case_of_files({channels[0]: first}, channels, _stem(first), cells),)
    cases = tuple(_case({channels[0]: Path(item)}, _stem(Path(item)), cells) for item in inputs)
    twice = {case.case_id for case in cases if sum(other.case_id == case.case_id for other in cases) > 1}
    if twice:
        raise InputError(f"two files would be the case {sorted(twice)[0]!r}; give a table with case ids instead")
    return cases


def config_of(inputs: Sequence[str]) -> Config | None:
    """The cohort configuration that was given; None where something else was.

    Raises:
        ConfigError: if it is wrong.
    """
    if len(inputs) != 1 or Path(inputs[0]).suffix.lower() not in CONFIGS:
        return None
    return configuration.load(Path(inputs[0]))


def cells_of(covariates: Mapping[str, Any], trained: Config) -> dict[str, str | None]:
    """Values given for one case as cells of a table; None, an empty text or a word of ``cohort.missing`` is missing.

    All that the model reads must be given, so that none is forgotten in silence.

    Raises:
        InputError: one is not given, is not the model's, or holds no value of its kind.
    """
    wanted = trained.used_covariates
    if covariates and not wanted:
        raise InputError(f"the model reads no covariates; leave {', '.join(covariates)} away", code="B162")
    if set(covariates) != set(wanted):
        found = ", ".join(covariates) or "none"
        raise InputError(
            f"the model wants the covariates {', '.join(wanted)}; found {found}; give --covariate NAME=VALUE for each, "
            "and NAME= for one that is missing",
            code="B162",
        )
    words = (*trained.cohort.missing, "")
    cells = {name: None if value is None or str(value) in words else str(value) for name, value in covariates.items()}
    for name, kind in wanted.items():
        try:
            parse(name, kind, cells[name])
        except CovariateFault as fault:
            raise InputError(str(fault), code=fault.code) from None
    return cells


def matched_channels(given: Config, channels: Sequence[str], optional: Collection[str], name: str) -> Config:
    """Another configuration with a model's channels alone, in its order; those optional that are so in the model.

    Args:
        given: the other configuration.
        channels, optional: the model's, and which of them a case may lack.
        name: of the other configuration's file.

    Raises:
        InputError: if it has none, or lacks one that is not optional.
    """
    columns = [channel for channel in channels if channel in given.cohort.columns]
    absent = [channel for channel in channels if channel not in columns and not (channel in optional and columns)]
    if absent:
        wanted = ", ".join(channels)
        raise InputError(f"{name} has no channel {', '.join(absent)}; the model wants {wanted}: name them so")

    def held(section: CohortSection) -> dict[str, str | ChannelSection]:
        return {
            channel: ChannelSection(column=column, optional=True) if channel in optional else column
            for channel, column in ((channel, section.columns[channel]) for channel in columns)
        }

    cohorts = tuple(section.model_copy(update={"channels": held(section)}) for section in given.cohorts)
    cohort = given.cohort.model_copy(update={"channels": held(given.cohort)})
    return given.model_copy(update={"cohort": cohort, "cohorts": cohorts})


def same_covariates(trained: Config, given: Config, name: str) -> None:
    """Refuse a cohort that does not declare the covariates that the model reads.

    Raises:
        InputError: naming the first that is absent or of another kind.
    """
    for covariate, kind in trained.used_covariates.items():
        found = given.cohort.covariates.get(covariate)
        if found != kind:
            raise InputError(
                f"{name} has {f'a {found}' if found else 'nothing'} as the covariate {covariate}, and the model wants "
                f"a {kind}: declare cohort.covariates: {{{covariate}: {kind}}}, a column of that name"
            )


def names_of(inputs: object) -> list[str]:
    """What a caller gives to be predicted, as texts.

    Raises:
        InputError: if it is nothing, or no path and no list of paths.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise InputError(f"inputs are a path or a list of paths, found a {type(inputs).__name__}")
    items: list[object] = list(given)
    wrong = [type(item).__name__ for item in items if not isinstance(item, str | os.PathLike)]
    if wrong:
        raise InputError(f"inputs are paths, found a {wrong[0]} among them")
    if not items:
        raise InputError("there is nothing to predict; give images, a table or a cohort's configuration as inputs")
    return [str(item) for item in items]


def _refuse_several(inputs: Sequence[str]) -> None:
    """Refuse a table or a configuration beside anything else."""
    tables = [item for item in inputs if Path(item).suffix.lower() in (*CONFIGS, *TABLES)]
    if tables and len(inputs) > 1:
        kind = "a configuration" if Path(tables[0]).suffix.lower() in CONFIGS else "a table"
        raise InputError(f"{tables[0]} is {kind}, which is given alone; predict its cases in a call of its own")


def _refuse_other_names(inputs: Sequence[str], channels: Sequence[str], optional: Collection[str]) -> None:
    """Refuse what is neither the model's channels by name nor bare files for its only one."""
    wanted = " ".join(f"[{name}=FILE]" if name in optional else f"{name}=FILE" for name in channels)
    if len(channels) > 1:
        raise InputError(f"this model has {len(channels)} channels; give {wanted}")
    for item in inputs:
        name, equals, _ = item.partition("=")
        if equals and name in channels:
            raise InputError(f"give either {wanted} for one case, or bare files, a case each; found both")
        if equals and not os.path.exists(item):
            raise InputError(f"{name} is no channel of this model; give {wanted}")


def case_of_files(
    images: object,
    channels: tuple[str, ...],
    case_id: str | None = None,
    cells: Mapping[str, str | None] | None = None,
    optional: Sequence[str] = (),
) -> Case:
    """One case from a file per channel, but for optional ones that it lacks, and its covariates' cells.

    By default it is named by its first channel's file.

    Raises:
        InputError: if a channel is missing or unknown, a file does not exist or is no path, or two channels are one
            file (B020).
    """
    if not isinstance(images, Mapping):
        wanted = ", ".join(f"{name!r}: FILE" for name in channels)
        raise InputError(f"the model wants a file for each channel, {{{wanted}}}; found a {type(images).__name__}")
    refuse_other_channels(images, channels, optional)
    for name, file in images.items():
        if file is None or (isinstance(file, str) and not file):
            way = "leave out an optional channel that the case lacks" if name in optional else "the model needs it"
            found = "None" if file is None else "an empty text"
            raise InputError(f"channel {name} is given by the path of a NIfTI file, found {found}; {way}")
        if not isinstance(file, str | os.PathLike):
            raise InputError(f"channel {name} is given by the path of a NIfTI file, found a {type(file).__name__}")
    paths = {name: Path(images[name]) for name in channels if name in images}
    for path in paths.values():
        if not os.path.isfile(path):  # which, unlike a path's own, does not fail for a name that is too long
            raise InputError(f"{path} is no file")
    for (name, path), (other, its) in combinations(paths.items(), 2):
        if os.path.samefile(path, its):
            raise InputError(f"the channels {name} and {other} are one file, {path}", code="B020")
    return _case(paths, _stem(next(iter(paths.values()))) if case_id is None else case_id, cells or {})


def _case(images: Mapping[str, Path], case_id: str, cells: Mapping[str, str | None]) -> Case:
    return Case(case_id=case_id, patient=case_id, site=None, row=0, images=images, cells=cells)


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(ending) for ending in ENDINGS if path.name.endswith(ending)), path.name)


def _is_cohort(inputs: Sequence[str]) -> bool:
    return len(inputs) == 1 and Path(inputs[0]).suffix.lower() in (*CONFIGS, *TABLES)


def _tables(
    config: Config, channels: tuple[str, ...], kinds: Kinds, findings: Findings | None, *, persons: bool = False
) -> tuple[Case, ...]:
    """The cases of a configuration's table, or of all of its tables; ``persons`` where patients' ids are wanted."""
    if not config.cohorts:
        section = config.cohort
        patient = section.patient if persons else section.case
        return _table(section.table, section, channels, kinds, patient, findings)
    cases: list[Case] = []
    for part in config.cohorts:
        found = Findings()
        patient = part.patient if persons else part.case
        held = _table(part.table, part, channels, kinds, patient, None if findings is None else found)
        cases += [of_cohort(case, part.name, has_site=part.site is not None) for case in held]
        if findings is not None:
            findings.extend([finding_of(finding, part.name) for finding in found])
    return tuple(cases)


def _table(
    table: Path,
    section: CohortSection,
    channels: tuple[str, ...],
    covariates: Kinds,
    patient: str,
    findings: Findings | None,
) -> tuple[Case, ...]:
    layout = CohortLayout(
        table,
        section.case,
        patient,
        {name: section.columns[name] for name in channels if name in section.columns},
        covariates=tuple(covariates),
        missing=section.missing,
        roots=section.roots,
        # a leak between splits is the harm of a shared image, and prediction has no splits
        allow_shared_image=True,
        optional=section.optional,
    )
    found = Findings() if findings is None else findings
    cohort = read_cohort(layout, found)
    for name, kind in covariates.items():
        read_column(cohort.cases, name, kind, found)
    rejected = found.rejected()
    if rejected and findings is None:
        raise CohortError(f"{table.name} has {len(rejected)} faults; first: {rejected[0].sentence()}", list(found))
    refused = {finding.row for finding in rejected}
    return tuple(case for case in cohort.cases if case.row not in refused)
