"""Whom a run has seen: the patients and images of its cohort or of its training part, and whether a case is among them.

A run writes into its manifest whom it was ``trained`` on and, of the run that it started from, what that one had
``seen``. Whoever needs cases that a network does not know compares them with both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.checking.checked import Checked
from medmtl.data.case import Case
from medmtl.data.cohort import Cohort, sameness
from medmtl.errors import ArtefactError

ANY_TABLE = ""  # of patients of whom it is not known which table they stand in


@dataclass(frozen=True)
class Known:
    """Patients and images.

    Attributes:
        patients: hash of a table -> ids of its patients, as written there.
        files_sha256: hashes of the images' files.
        voxels_sha256: digests of their voxels, which a file that was packed or reordered anew keeps.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    patients: dict[str, tuple[str, ...]]
    files_sha256: tuple[str, ...]
    voxels_sha256: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As written to ``manifest.json``."""
        return asdict(self)

    def has_patient(self, case: Case, cohort: Cohort) -> bool:
        """Whether a case's patient is among them.

        Within one table an id is one person. Ids of two tables are taken for one person's where they are one number, or
        differ in blanks and case only: the cautious reading.
        """
        own = self._by_table.get(_table(case, cohort))
        return sameness(case.person) in self._alike if own is None else case.person in own

    def has_image(self, path: Path, checked: Checked) -> bool:
        """Whether a file of a checked cohort is one of them, or holds the voxels of one."""
        name = os.path.relpath(path, checked.cohort.table.parent)
        return checked.sha256.get(name) in self._files or checked.voxels.get(name) in self._voxels

    def has_case(self, case: Case, checked: Checked) -> bool:
        """Whether a case's patient, or one of its images, is among them."""
        return self.has_patient(case, checked.cohort) or any(
            self.has_image(path, checked) for path in case.images.values()
        )

    @cached_property
    def _by_table(self) -> dict[str, frozenset[str]]:
        return {table: frozenset(ids) for table, ids in self.patients.items()}

    @cached_property
    def _alike(self) -> frozenset[Any]:
        return frozenset(sameness(patient) for ids in self.patients.values() for patient in ids)

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(self.files_sha256)

    @cached_property
    def _voxels(self) -> frozenset[str]:
        return frozenset(self.voxels_sha256)


def known_of(checked: Checked, cases: Iterable[Case]) -> Known:
    """The patients and images of some cases of a checked cohort; its tables are named also where none is of them."""
    cohort = checked.cohort
    patients: dict[str, set[str]] = {table: set() for table in (cohort.tables.values() or (cohort.sha256,))}
    names: set[str] = set()
    for case in cases:
        patients[_table(case, cohort)].add(case.person)
        names.update(os.path.relpath(path, cohort.table.parent) for path in case.images.values())
    return Known(
        {table: tuple(sorted(ids)) for table, ids in patients.items()},
        tuple(sorted({checked.sha256[name] for name in names})),
        tuple(sorted({checked.voxels[name] for name in names if name in checked.voxels})),
    )


def whole_cohort(manifest: Mapping[str, Any]) -> Known:
    """Everybody and everything of a run's own cohort, whatever part it is in."""
    files, voxels = {*manifest["files_sha256"].values()}, {*manifest["voxels_sha256"].values()}
    return Known({ANY_TABLE: tuple(manifest["patients"])}, tuple(sorted(files)), tuple(sorted(voxels)))


def trained_on(manifest: Mapping[str, Any]) -> Known:
    """A run's training part.

    Raises:
        ArtefactError: if the manifest holds something else there.
    """
    return _read([manifest["trained"]])[0]


def inherited(manifest: Mapping[str, Any]) -> list[Known]:
    """What the run that this one started from had seen, and those before it.

    Raises:
        ArtefactError: if the manifest holds something else there.
    """
    record = manifest.get("init", {"seen": []})
    return _read(record.get("seen") if isinstance(record, dict) else record)


def images_learned_from(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Hashes of the image files of a run's training part, and of all that the run it started from had seen.

    Raises:
        ArtefactError: as :func:`trained_on`.
    """
    return frozenset(name for record in (trained_on(manifest), *inherited(manifest)) for name in record.files_sha256)


def _read(data: Any) -> list[Known]:
    try:
        return TypeAdapter(list[Known]).validate_python(data)
    except ValidationError as error:
        place = "/".join(map(str, error.errors()[0]["loc"])) or "the list"
        raise ArtefactError(f"manifest.json was refused: of what the run has seen, {place} is unreadable") from None


def _table(case: Case, cohort: Cohort) -> str:
    """Hash of the table that a case stands in."""
    return cohort.sha256 if case.cohort is None else cohort.tables[case.cohort]
