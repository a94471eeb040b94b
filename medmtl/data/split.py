"""Who trains, who validates and who is kept for the test; one person is never in two parts.

Folds are made by iterative stratification over patients, or taken from a column of the table or from nnU-Net's
``splits_final.json``. All three end in the same :class:`Splits`, which a run keeps as ``splits.json``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.errors import ArtefactError, CohortError
from medmtl.files import parse_json
from medmtl.rng import generator

Part = Literal["train", "val", "test"]
Labels = Mapping[str, frozenset[str]]

EVERYBODY = ("", True)  # a mark that every patient carries: what a part still wants of it is the room it has left


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

    Each patient carries the labels of all its cases. Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On
    the stratification of multi-label data", ECML PKDD 2011, https://doi.org/10.1007/978-3-642-23808-6_10) deals out the
    patients of the rarest label first, each to the part that wants most of that label; ties go to the part with most
    room, then to chance. It deviates from the paper in two points. Not carrying a label counts as a label of its own:
    where nine of ten patients are labelled, it is the tenth that must be spread. And a part that is full takes no more,
    so that the test part has exactly its number of patients and the folds differ by one patient at most.

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
    carried: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        carried[case.patient] |= labels.get(case.case_id, frozenset())
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
        tested = _stratify(carried, (held, len(carried) - held), generator(seed, "split", "test"))[0]
    rest = {patient: carried[patient] for patient in carried.keys() - tested}
    sizes = [(len(rest) + fold) // folds for fold in range(folds)]
    groups = _stratify(rest, sizes, generator(seed, "split", "folds"))
    divided = [
        Fold(
            train=_ids(case for case in cases if case.patient in rest and case.patient not in group),
            val=_ids(case for case in cases if case.patient in group),
        )
        for group in groups
    ]
    return _checked(divided, _ids(case for case in cases if case.patient in tested), cases, labels, "split.folds")


def from_column(cases: Sequence[Case], labels: Labels | None = None) -> Splits:
    """One fold and a test part as the table's split column says.

    Args:
        cases: the cohort; each case's ``split`` must be exactly ``train``, ``val`` or ``test``.
        labels: case id -> labels, for the balance only.

    Raises:
        CohortError: B023 for any other value, B021 for a patient in two parts, B024 for an empty train or val part.
    """
    findings = Findings()
    parts: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    for case in cases:
        if case.split in parts:
            parts[case.split].append(case)
        else:
            findings.reject(
                "B023",
                case=case.case_id,
                row=case.row,
                key="split.column",
                found=case.split or "an empty cell",
                expected="train, val or test",
                fix="write one of the three, in small letters and without blanks",
            )
    if len(findings):
        raise _refusal(findings)
    fold = Fold(_ids(parts["train"]), _ids(parts["val"]))
    return _checked([fold], _ids(parts["test"]), cases, labels or {}, "split.column")


def from_file(path: Path, cases: Sequence[Case], labels: Labels | None = None) -> Splits:
    """Folds as nnU-Net's ``splits_final.json`` states them: ``[{"train": [...], "val": [...]}, ...]``.

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
    for unknown in sorted(named - {case.case_id for case in cases}):
        findings.reject(
            "B023",
            key="split.file",
            file=path.name,
            found=unknown,
            expected="case ids of the table",
            fix="correct the file or add the row",
        )
    if len(findings):
        raise _refusal(findings)
    folds = [Fold(tuple(sorted(fold.train)), tuple(sorted(fold.val))) for fold in folds]
    test = _ids(case for case in cases if case.case_id not in named)
    return _checked(folds, test, cases, labels or {}, "split.file")


def _stratify(carried: Mapping[str, Set[str]], sizes: Sequence[int], rng: np.random.Generator) -> list[set[str]]:
    """Deal patients with their labels into parts of exactly these sizes, which sum to the number of patients."""
    patients = sorted(carried)
    vocabulary = sorted(set().union(*carried.values()))
    waiting = {
        patients[index]: {EVERYBODY, *((label, label in carried[patients[index]]) for label in vocabulary)}
        for index in rng.permutation(len(patients))
    }
    holders = Counter(mark for marks in waiting.values() for mark in marks)
    wants = [{mark: count * size / len(patients) for mark, count in holders.items()} for size in sizes]
    parts: list[set[str]] = [set() for _ in sizes]
    while waiting:
        left = Counter(mark for marks in waiting.values() for mark in marks)
        rarest = min(left, key=lambda mark: (left[mark], mark == EVERYBODY, mark))
        for patient in [patient for patient, marks in waiting.items() if rarest in marks]:
            needs = {i: (want[rarest], want[EVERYBODY]) for i, want in enumerate(wants) if want[EVERYBODY] > 0}
            neediest = [i for i, need in needs.items() if need == max(needs.values())]
            chosen = neediest[rng.integers(len(neediest))]
            parts[chosen].add(patient)
            for mark in waiting.pop(patient):
                wants[chosen][mark] -= 1
    return parts


def _ids(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(sorted(case.case_id for case in cases))


def _checked(folds: Sequence[Fold], test: tuple[str, ...], cases: Sequence[Case], labels: Labels, key: str) -> Splits:
    """The splits with their balance, or every fault of them at once."""
    known = {case.case_id: case for case in cases}
    findings = Findings()
    if not folds:
        findings.reject("B024", key=key, found="no fold", expected="at least one", fix="name train and val cases")
    validated: dict[str, int] = {}
    for number, fold in enumerate(folds):
        _check_fold(number, fold, test, known, key, findings)
        for case_id in sorted(set(fold.val)):
            if validated.setdefault(case_id, number) != number:
                findings.reject(
                    "B017",
                    case=case_id,
                    row=known[case_id].row,
                    key=key,
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
    number: int, fold: Fold, test: tuple[str, ...], known: Mapping[str, Case], key: str, findings: Findings
) -> None:
    members = [
        (known[case_id], part)
        for part, ids in (("train", fold.train), ("val", fold.val), ("test", test))
        for case_id in ids
    ]
    for part in ("train", "val"):
        if not any(member[1] == part for member in members):
            findings.reject(
                "B024",
                key=key,
                found=f"no {part} case in fold {number}",
                expected=f"at least one {part} case",
                fix="give the part a patient",
            )
    first: dict[str, tuple[Case, str]] = {}
    seen: set[str] = set()
    for case, part in sorted(members, key=lambda member: member[0].row):
        earlier, home = first.setdefault(case.patient, (case, part))
        where: dict[str, Any] = {"case": case.case_id, "row": case.row, "key": key}
        if part != home:
            findings.reject(
                "B021",
                **where,
                found=f"{home} (row {earlier.row}) and {part}, fold {number}",
                expected="a patient in one part",
                fix="put all cases of this patient into one part",
            )
        elif case.case_id in seen:
            findings.reject(
                "B017",
                **where,
                found=f"twice in {part} of fold {number}",
                expected="a case once",
                fix="remove the second mention",
            )
        seen.add(case.case_id)


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
    code, expected = "B027", 'JSON: [{"train": [ids], "val": [ids]}, ...]'
    try:
        return TypeAdapter(list[Fold]).validate_python(parse_json(path.read_bytes(), path.name))
    except OSError as error:
        code, found, expected = "B001", error.strerror or "unreadable", "a readable file"
    except ArtefactError as error:
        found = str(error).removeprefix(f"{path.name} is ")
    except ValidationError as error:
        found = _first_fault(error)
    findings.reject(code, key="split.file", file=path.name, found=found, expected=expected)
    raise _refusal(findings)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = "/".join(map(str, fault["loc"]))
    return f"at /{place}: {fault['msg']}"
