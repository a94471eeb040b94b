"""Folds that a file states: nnU-Net's ``splits_final.json``, or the ``splits.json`` of a run."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.split import Fold, Labels, Source, Splits, checked, first_fault, ids_of, refusal
from medmtl.errors import ArtefactError
from medmtl.files import parse_json

MAX_JSON_BYTES = 1 << 26  # five folds of half a million ids


def from_file(
    path: Path, cases: Sequence[Case], labels: Labels | None = None, doubts: Findings | None = None
) -> Splits:
    """Folds as nnU-Net's ``splits_final.json`` states them: ``[{"train": [...], "val": [...]}, ...]``.

    The ``splits.json`` of a run does as well, so that other tasks can be trained on its folds.

    A case that no fold names is never trained on or validated: it becomes the test part. That is a warning, B023,
    where the file does not name it as such, as only the ``splits.json`` of a run can.

    Args:
        path: the file; its ids are the table's case ids.
        cases: the cohort.
        labels: case id -> labels, for the balance only.
        doubts: gets the warning.

    Raises:
        CohortError: B001 if the file cannot be read, B027 if it holds something else, B023 for an id that is no case of
            the table, B017 for one that stands twice, B021 for a patient in two parts, B024 for an empty part.
    """
    folds, stated_test = _read_parts(path)
    named = {case_id for fold in folds for case_id in (*fold.train, *fold.val)}
    findings = Findings()
    known = {case.case_id for case in cases}
    for unknown in sorted(named - known):
        findings.reject(
            "B023",
            key="split.file",
            file=path.name,
            found=unknown,
            expected="case ids of the table",
            fix="correct the file or add the row",
        )
    source = Source("split.file", known_in_full=not len(findings))
    folds = [Fold(_sorted(fold.train, known), _sorted(fold.val, known)) for fold in folds]
    test = ids_of(case for case in cases if case.case_id not in named)
    splits = checked(folds, test, cases, labels or {}, source, findings)
    if doubts is not None:
        told = named | stated_test
        _doubt_the_rest([case for case in cases if case.case_id not in told], path, doubts)
    return splits


def _doubt_the_rest(cases: Sequence[Case], path: Path, doubts: Findings) -> None:
    """One warning for all rows that the file says nothing of: a file that is older than the table has some."""
    if cases:
        first = min(case.row for case in cases)
        doubts.warn(
            "B023",
            key="split.file",
            file=path.name,
            found=f"{len(cases)} case{'s' if len(cases) > 1 else ''} in no fold, first row {first}",
            expected="every case in a fold",
            fix="kept as the test part, never trained on; name them in a fold if that is not meant",
        )


def _sorted(ids: Iterable[str], known: Set[str]) -> tuple[str, ...]:
    return tuple(sorted(case_id for case_id in ids if case_id in known))


def _read_parts(path: Path) -> tuple[list[Fold], set[str]]:
    """The folds, and the ids of a stated test part."""
    findings = Findings()
    fix = "write it as nnU-Net does, or name the splits.json of a run"
    code, expected = "B027", 'JSON: [{"train": [ids], "val": [ids]}, ...]'
    try:
        value = parse_json(_bytes(path), path.name)
        folds, test = value, []
        if isinstance(value, dict) and "folds" in value:
            folds, test = value["folds"], value.get("test", [])
        return TypeAdapter(list[Fold]).validate_python(folds), TypeAdapter(set[str]).validate_python(test)
    except OSError as error:
        code, found, expected = "B001", f"{error.strerror} (errno {error.errno})", "a readable file"
    except ArtefactError as error:
        code, found = error.code or code, str(error).rpartition(f"{path.name} is ")[2]
    except ValidationError as error:
        found = first_fault(error)
    findings.reject(code, key="split.file", file=path.name, found=found, expected=expected, fix=fix)
    raise refusal(findings)


def _bytes(path: Path) -> bytes:
    """The file's bytes; a pipe would block, and a folder of that name is no file."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    if status.st_size > MAX_JSON_BYTES:
        raise ArtefactError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes", code="B029")
    return path.read_bytes()
