"""Who trains, who validates and who is kept for the test; one person is never in two parts.

Folds are made by iterative stratification over patients, or taken from a column of the table or from a file
(:mod:`medmtl.data.split_file`). All three end in the same :class:`Splits`, which a run keeps as ``splits.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.stratification import stratify
from medmtl.errors import ArtefactError, CohortError
from medmtl.rng import generator
from medmtl.spelling import nearest

Part = Literal["train", "val", "test"]
Labels = Mapping[str, frozenset[str]]


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
            raise ArtefactError(f"splits.json was refused {first_fault(error)}") from None
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
        raise refusal(findings)
    tested: set[str] = set()
    if held:
        tested = stratify(carried, (held, len(carried) - held), generator(seed, "split", "test"))[0]
    rest = {patient: carried[patient] for patient in carried.keys() - tested}
    sizes = [(len(rest) + fold) // folds for fold in range(folds)]
    groups = stratify(rest, sizes, generator(seed, "split", "folds"))
    divided = [
        Fold(
            train=ids_of(case for case in cases if case.patient in rest and case.patient not in group),
            val=ids_of(case for case in cases if case.patient in group),
        )
        for group in groups
    ]
    test_ids = ids_of(case for case in cases if case.patient in tested)
    return checked(divided, test_ids, cases, labels, Source("split.folds"), Findings())


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
            guess = "val" if (case.split or "").strip().lower() == "validation" else nearest(case.split or "", parts)
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
    fold = Fold(ids_of(parts["train"]), ids_of(parts["val"]))
    source = Source("split.column", column, known_in_full=not len(findings))
    return checked([fold], ids_of(parts["test"]), cases, labels or {}, source, findings)


def ids_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """Their ids, sorted."""
    return tuple(sorted(case.case_id for case in cases))


@dataclass(frozen=True)
class Source:
    """Where folds come from: its key, its column, and whether no mention was refused, so that a part can be empty."""

    key: str
    column: str | None = None
    known_in_full: bool = True


def checked(
    folds: Sequence[Fold],
    test: tuple[str, ...],
    cases: Sequence[Case],
    labels: Labels,
    source: Source,
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
        raise refusal(findings)
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
    source: Source,
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


def refusal(findings: Findings) -> CohortError:
    """The error that carries all of them, in the words of the first."""
    found = list(findings)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return CohortError(f"the split was refused{more}: {found[0].sentence()}", found)


def first_fault(error: ValidationError) -> str:
    """Where it is in the JSON, and what."""
    fault = error.errors()[0]
    place = "/".join(map(str, fault["loc"]))
    return f"at /{place}: {fault['msg']}"
