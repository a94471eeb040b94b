"""Who trains, who validates and who is kept for the test; one person is never in two parts.

Folds are made by iterative stratification over patients, or taken from a column of the table or from nnU-Net's
``splits_final.json``. All three end in the same :class:`Splits`, which a run keeps as ``splits.json``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.stratification import stratify
from medmtl.errors import ArtefactError, CohortError
from medmtl.files import parse_json
from medmtl.rng import generator
from medmtl.spelling import nearest

Part = Literal["train", "val", "test"]
Labels = Mapping[str, frozenset[str]]

MAX_JSON_BYTES = 1 << 26  # of splits_final.json: five folds of half a million ids


@dataclass(frozen=True)
class Fold:
    """One division of the cases that are not in the test part.

    Attributes:
        train: case ids, sorted.
        val: case ids, sorted.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Balance:
    """What one part of one fold holds.

    Attributes:
        fold: number of the fold; None for the test part, which all folds share.
        part: ``train``, ``val`` or ``test``.
        patients, cases: how many.
        labels: stratification label -> number of cases that carry it, zeros included.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    fold: int | None
    part: Part
    patients: int
    cases: int
    labels: dict[str, int]


@dataclass(frozen=True)
class Splits:
    """All folds of an experiment.

    Attributes:
        folds: at least one.
        test: case ids, sorted; no fold holds any of them.
        balance: two rows per fold, then one for the test part where there is one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    folds: tuple[Fold, ...]
    test: tuple[str, ...]
    balance: tuple[Balance, ...]

    def to_json(self) -> dict[str, Any]:
        """As written to ``splits.json``."""
        return asdict(self)

    @staticmethod
    def from_json(data: Any) -> Splits:
        """Read ``splits.json`` strictly.

        Raises:
            ArtefactError: on missing, unknown or ill-typed entries, an empty part, or a case that stands twice.
        """
        try:
            splits = TypeAdapter(Splits).validate_python(data)
        except ValidationError as error:
            raise ArtefactError(f"splits.json was refused {_first_fault(error)}") from None
        if not splits.folds:
            raise ArtefactError("splits.json was refused: it holds no fold")
        for number, fold in enumerate(splits.folds):
            if not fold.train or not fold.val:
                raise ArtefactError(f"splits.json was refused: fold {number} has an empty part")
            ids = (*fold.train, *fold.val, *splits.test)
            if len(set(ids)) < len(ids):
                raise ArtefactError(f"splits.json was refused: a case stands twice in fold {number}")
        return splits


def make_splits(cases: Sequence[Case], labels: Labels, *, folds: int, seed: int, test: float) -> Splits:
    """Stratified folds of whole patients, after a stratified test part was cut off.

    Each patient carries the labels of all its cases; :mod:`medmtl.data.stratification` says how they are dealt out.

    The result depends on the set of cases and labels and on the seed, not on the order of rows; the test part does not
    depend on the number of folds.

    Args:
        cases: the cohort.
        labels: case id -> labels to balance, such as ``malignancy=benign`` or ``site=A``; absent ids carry none.
        folds: number of folds; each patient outside the test part is validated in exactly one.
        seed: of the chance in ties.
        test: fraction of patients for the test part, in [0, 1). Rounded; at least one patient where it is above 0.

    Raises:
        CohortError: B024 if a part would be empty.
    """
    carried: dict[str, frozenset[str]] = {}
    for case in cases:
        own = labels.get(case.case_id, frozenset())
        carried[case.patient] = carried[case.patient] | own if case.patient in carried else own
    held = max(1, round(test * len(carried))) if test > 0 else 0
    if len(carried) - held < folds:
        findings = Findings()
        findings.reject(
            "B024",
            key="split.folds",
            found=f"{folds} folds, {len(carried) - held} patients",
            expected="a patient per fold at least",
            fix=f"lower split.folds or split.test ({held} patients are in the test part)",
        )
        raise _refusal(findings)
    tested: set[str] = set()
    if held:
        tested = stratify(carried, (held, len(carried) - held), generator(seed, "split", "test"))[0]
    rest = {patient: carried[patient] for patient in carried.keys() - tested}
    sizes = [(len(rest) + fold) // folds for fold in range(folds)]
    groups = stratify(rest, sizes, generator(seed, "split", "folds"))
    divided = [
        Fold(
            train=_ids(case for case in cases if case.patient in rest and case.patient not in group),
            val=_ids(case for case in cases if case.patient in group),
        )
        for group in groups
    ]
    test_ids = _ids(case for case in cases if case.patient in tested)
    return _checked(divided, test_ids, cases, labels, _Source("split.folds"), Findings())


def from_column(cases: Sequence[Case], labels: Labels | None = None, *, column: str | None = None) -> Splits:
    """One fold and a test part as the table's split column says.

    Args:
        cases: the cohort; each case's ``split`` must be exactly ``train``, ``val`` or ``test``.
        labels: case id -> labels, for the balance only.
        column: its name, for findings.

    Raises:
        CohortError: B023 for any other value, B021 for a patient in two parts, and B024 for an empty train or val part,
            which cannot be told while values are wrong.
    """
    findings = Findings()
    parts: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    for case in cases:
        if case.split in parts:
            parts[case.split].append(case)
        else:
            guess = nearest(case.split or "", parts)
            findings.reject(
                "B023",
                case=case.case_id,
                row=case.row,
                column=column,
                key="split.column",
                found=case.split or "an empty cell",
                expected="train, val or test",
                fix=f"write {guess}" if guess else "write one of the three, in small letters and without blanks",
            )
    fold = Fold(_ids(parts["train"]), _ids(parts["val"]))
    source = _Source("split.column", column, known_in_full=not len(findings))
    return _checked([fold], _ids(parts["test"]), cases, labels or {}, source, findings)


def from_file(path: Path, cases: Sequence[Case], labels: Labels | None = None) -> Splits:
    """Folds as nnU-Net's ``splits_final.json`` states them: ``[{"train": [...], "val": [...]}, ...]``.

    The ``splits.json`` of a run does as well, so that other tasks can be trained on its folds.

    A case that no fold names is never trained on or validated: it becomes the test part.

    Args:
        path: the file; its ids are the table's case ids.
        cases: the cohort.
        labels: case id -> labels, for the balance only.

    Raises:
        CohortError: B001 if the file cannot be read, B027 if it holds something else, B023 for an id that is no case of
            the table, B017 for one that stands twice, B021 for a patient in two parts, B024 for an empty part.
    """
    folds = _read_folds(path)
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
    source = _Source("split.file", known_in_full=not len(findings))
    folds = [Fold(_sorted(fold.train, known), _sorted(fold.val, known)) for fold in folds]
    test = _ids(case for case in cases if case.case_id not in named)
    return _checked(folds, test, cases, labels or {}, source, findings)


def _ids(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(sorted(case.case_id for case in cases))


def _sorted(ids: Iterable[str], known: Set[str]) -> tuple[str, ...]:
    return tuple(sorted(case_id for case_id in ids if case_id in known))


@dataclass(frozen=True)
class _Source:
    """Where folds come from: its key, its column, and whether no mention was refused, so that a part can be empty."""

    key: str
    column: str | None = None
    known_in_full: bool = True


def _checked(
    folds: Sequence[Fold],
    test: tuple[str, ...],
    cases: Sequence[Case],
    labels: Labels,
    source: _Source,
    findings: Findings,
) -> Splits:
    """The splits with their balance, or every fault of them at once."""
    known = {case.case_id: case for case in cases}
    if not folds:
        findings.reject(
            "B024", key=source.key, found="no fold", expected="at least one", fix="name train and val cases"
        )
    told: set[str] = set()
    validated: dict[str, int] = {}
    for number, fold in enumerate(folds):
        _check_fold(number, fold, test, known, source, told, findings)
        for case_id in sorted(set(fold.val)):
            if validated.setdefault(case_id, number) != number:
                findings.reject(
                    "B017",
                    case=case_id,
                    row=known[case_id].row,
                    key=source.key,
                    found=f"in val of folds {validated[case_id]} and {number}",
                    expected="validation in one fold",
                    fix="results are pooled over folds, where a case counts once",
                )
    if len(findings):
        raise _refusal(findings)
    vocabulary = sorted({label for case_id in known for label in labels.get(case_id, ())})
    parts: list[tuple[int | None, Part, tuple[str, ...]]] = []
    for number, fold in enumerate(folds):
        parts += [(number, "train", fold.train), (number, "val", fold.val)]
    if test:
        parts.append((None, "test", test))
    balance = tuple(_balance(number, part, ids, known, labels, vocabulary) for number, part, ids in parts)
    return Splits(tuple(folds), test, balance)


def _check_fold(
    number: int,
    fold: Fold,
    test: tuple[str, ...],
    known: Mapping[str, Case],
    source: _Source,
    told: set[str],
    findings: Findings,
) -> None:
    """Add a fold's faults; a case in ``told`` has its own already, from an earlier fold."""
    members = [
        (known[case_id], part)
        for part, ids in (("train", fold.train), ("val", fold.val), ("test", test))
        for case_id in ids
    ]
    for part in ("train", "val") if source.known_in_full else ():
        if not any(member[1] == part for member in members):
            findings.reject(
                "B024",
                key=source.key,
                found=f"no {part} case in fold {number}",
                expected=f"at least one {part} case",
                fix="give the part a patient",
            )
    first: dict[str, tuple[Case, str]] = {}
    seen: set[str] = set()
    for case, part in sorted(members, key=lambda member: member[0].row):
        earlier, home = first.setdefault(case.patient, (case, part))
        twice = case.case_id in seen
        seen.add(case.case_id)
        if (part == home and not twice) or case.case_id in told:
            continue
        told.add(case.case_id)
        where: dict[str, Any] = {"case": case.case_id, "row": case.row, "column": source.column, "key": source.key}
        if part != home:
            findings.reject(
                "B021",
                **where,
                found=f"{home} (row {earlier.row}) and {part}, fold {number}",
                expected="a patient in one part",
                fix="put all cases of this patient into one part",
            )
        else:
            findings.reject(
                "B017",
                **where,
                found=f"twice in {part} of fold {number}",
                expected="a case once",
                fix="remove the second mention",
            )


def _balance(
    number: int | None,
    part: Part,
    ids: Sequence[str],
    known: Mapping[str, Case],
    labels: Labels,
    vocabulary: Sequence[str],
) -> Balance:
    counts = Counter(label for case_id in ids for label in labels.get(case_id, ()))
    patients = {known[case_id].patient for case_id in ids}
    return Balance(number, part, len(patients), len(ids), {label: counts[label] for label in vocabulary})


def _refusal(findings: Findings) -> CohortError:
    found = list(findings)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return CohortError(f"the split was refused{more}: {found[0].sentence()}", found)


def _read_folds(path: Path) -> list[Fold]:
    findings = Findings()
    fix = "write it as nnU-Net does, or name the splits.json of a run"
    code, expected = "B027", 'JSON: [{"train": [ids], "val": [ids]}, ...]'
    try:
        value = parse_json(_bytes(path), path.name)
        folds = value["folds"] if isinstance(value, dict) and "folds" in value else value
        return TypeAdapter(list[Fold]).validate_python(folds)
    except OSError as error:
        code, found, expected = "B001", f"{error.strerror} (errno {error.errno})", "a readable file"
    except ArtefactError as error:
        code, found = error.code or code, str(error).rpartition(f"{path.name} is ")[2]
    except ValidationError as error:
        found = _first_fault(error)
    findings.reject(code, key="split.file", file=path.name, found=found, expected=expected, fix=fix)
    raise _refusal(findings)


def _bytes(path: Path) -> bytes:
    """The file's bytes; a pipe would block, and a folder of that name is no file."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    if status.st_size > MAX_JSON_BYTES:
        raise ArtefactError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes", code="B029")
    return path.read_bytes()


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = "/".join(map(str, fault["loc"]))
    return f"at /{place}: {fault['msg']}"
