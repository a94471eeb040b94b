"""The report's tables: what the run folder and the scores hold, as rows of text."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmtl.data.split import Balance, Splits
from medmtl.evaluation.meanings import BETTER, COUNTS, METHODS, OUT_OF, explained
from medmtl.evaluation.score import Scores
from medmtl.evaluation.small_groups import (
    SHARED_MINIMUM,
    family,
    holds_few_of_a_class,
    patients_of,
    small_families,
    withheld,
)
from medmtl.planning import Plan, plan_rows
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import ScoredCase

FEW = f"fewer than {SHARED_MINIMUM} patients"
BALANCE = "Balance of the split"
NEXT = "left out, as smaller groups would follow from it"
SKILL = "Skill compares with one answer for everybody, learned from the training cases: 1 is perfect, 0 no better."
FIXED = (
    "Sensitivity and specificity are at probability 0.5, not at the operating point of the run's own folds; do not "
    "compare them with theirs."
)
KNOWN = {"value", "ci95", "ci", "n", "better", "unit", "why", *OUT_OF.values()}


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        title: heading of the table.
        columns: their headings.
        rows: one text per column.
        numeric: columns that are aligned as numbers.
        note: sentences below, which may be lines of their own.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[str, ...] = ()
    note: str = ""


def number(value: float | None) -> str:
    """A number to about three digits, with a true minus sign; a dash for None."""
    if value is None:
        return "–"
    size = abs(value)
    if 0 < size < 0.001:
        text = f"{value:.2g}"
    else:
        text = f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return text.replace("-", "−")


def value_and_interval(metric: Mapping[str, Any]) -> tuple[str, str]:
    """The value with its unit, and the interval; dashes where there is none."""
    unit = f" {metric['unit']}" if metric.get("unit") else ""
    value = "–" if metric["value"] is None else f"{number(metric['value'])}{unit}"
    interval = metric.get("ci95")
    return value, "–" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def summary_table(scores: Scores) -> Table:
    """Every task by the metric to read first: the primary one, or the within-site score where it is the headline.

    The score over all pairs and that of the site alone stand beside the latter, and the within-site score beside the
    former where sites are known.
    """
    rows = []
    for name, body in scores.metrics["tasks"].items():
        first = body.get("headline", body["primary"])
        metric = body["metrics"][first]
        within = _within_site(scores, name).get(first)
        notes = [metric.get("why") or "", _confounded(body), _empty_references(body, first)]
        if within is not None:
            notes.append(f"within sites {value_and_interval(within)[0]}")
        if "skill" in body["metrics"]:
            notes.append(f"skill {value_and_interval(body['metrics']['skill'])[0]}")
        counts = (str(body["labelled"]), first, str(metric.get("n", "–")))
        rows.append((name, body["kind"], *counts, *value_and_interval(metric), _joined(notes)))
    columns = ("task", "kind", "labelled", "metric", "n", "value", "95 % interval", "notes")
    note = SKILL if any("skill" in body["metrics"] for body in scores.metrics["tasks"].values()) else ""
    return Table("Results", columns, tuple(rows), ("labelled", "n", "value", "95 % interval"), note)


def metric_tables(
    metrics: Mapping[str, Mapping[str, Any]], kind: str, *, fitted_elsewhere: bool = False
) -> list[Table]:
    """Every metric of a task of a kind: those of the whole task, then those of its labels and regions.

    Args:
        metrics: as in ``metrics.json``.
        kind: of the task.
        fitted_elsewhere: whether the run's own folds are scored at fitted thresholds, which these cases are not.
    """
    columns = ("metric", "value", "95 % interval", "interval by", "n", "better", "notes")
    tables: list[Table] = []
    for title, parts in (("Metrics", False), ("Metrics by label", True)):
        rows = []
        for name, metric in metrics.items():
            if ("/" in name) is parts:
                method = METHODS.get(metric.get("ci") or "", metric.get("ci") or "–")
                better = BETTER.get(metric.get("better", ""), "–")
                values = value_and_interval(metric)
                rows.append((name, *values, method, str(metric.get("n", "–")), better, _notes(metric)))
        if rows:
            said = [line for table in tables for line in table.note.splitlines()]
            lines = explained({name: metrics[name] for name, *_ in rows}, kind).splitlines()
            note = "\n".join(line for line in lines if line not in said)
            if fitted_elsewhere and any("threshold" in metrics[name] for name, *_ in rows):
                note = f"{note}\n{FIXED}".lstrip()
            tables.append(Table(title, columns, tuple(rows), ("value", "95 % interval", "n"), note))
    return tables


def site_table(scores: Scores, name: str, share: bool) -> Table | None:
    """A task's target and primary metric per site; None with fewer than two sites.

    On a shared page without small sites, and without counts of classes where one is of few patients.
    """
    groups: dict[str, list[ScoredCase]] = {}
    for case in scores.cases[name]:
        groups.setdefault(_site(case), []).append(case)
    if len(groups) < 2:
        return None
    task, primary = scores.tasks[name], scores.metrics["tasks"][name]["primary"]
    patients = {site: patients_of(cases) for site, cases in groups.items()}
    hidden = withheld(patients) if share else frozenset()
    targets = _target_columns(scores.cases[name])
    note = ""
    if share and _tells_few(groups, hidden, targets):
        targets, note = (), f"Classes are not counted here, as that would tell of {FEW}."
    columns = ("site", "cases", *targets, primary, "95 % interval", "notes")
    rows: list[tuple[str, ...]] = []
    for site, cases in sorted(groups.items()):
        if site in hidden:
            rows.append(_hidden_row(site, patients[site], columns))
            continue
        metric = task.metrics(cases)[primary].to_json()
        rows.append(
            (site, str(len(cases)), *_targets(cases, targets), *value_and_interval(metric), metric.get("why", ""))
        )
    return Table("By site", columns, tuple(rows), columns[1:-1], note)


def cohort_table(scores: Scores, name: str, share: bool) -> Table | None:
    """A task's primary metric per cohort; None where there is one. On a shared page without small cohorts."""
    body = scores.metrics["tasks"][name]
    if "cohorts" not in body:
        return None
    primary = body["primary"]
    columns = ("cohort", "cases", primary, "95 % interval", "notes")
    patients = {cohort: part["patients"] for cohort, part in body["cohorts"].items() if part["labelled"]}
    hidden = withheld(patients) if share else frozenset()
    rows: list[tuple[str, ...]] = []
    for cohort, part in body["cohorts"].items():
        metric = part["metrics"].get(primary)
        if metric is None:
            rows.append((cohort, "0", "–", "–", "no labelled case"))
        elif cohort in hidden:
            rows.append(_hidden_row(cohort, patients[cohort], columns))
        else:
            rows.append((cohort, str(part["labelled"]), *value_and_interval(metric), metric.get("why", "")))
    return Table("By cohort", columns, tuple(rows), columns[1:-1])


def within_site_table(scores: Scores, name: str) -> Table | None:
    """Ranking metrics over pairs of one site beside those over all pairs; None where there is no difference."""
    within = _within_site(scores, name)
    pooled = scores.metrics["tasks"][name]["metrics"]
    rows = tuple(
        (metric, *value_and_interval(pooled[metric]), *value_and_interval(found), found.get("why", ""))
        for metric, found in within.items()
    )
    if not rows:
        return None
    columns = ("metric", "all pairs", "95 % interval", "within sites", "95 % interval within", "notes")
    note = (
        "A lower score within sites may come from telling the sites apart, from sites whose patients differ in what is "
        "predicted, or from chance: compare the intervals."
    )
    if any(metric.startswith("average_precision") for metric in within):
        note += " Not so of average precision, whose chance level is that of each site: its share of positive cases."
    return Table("Within sites", columns, rows, columns[1:-1], note)


def finding_table(findings: Sequence[Mapping[str, Any]], share: bool) -> Table:
    """What ``check`` found, one row per rule; on a shared page the rule and its count only."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        groups.setdefault((finding["severity"], finding["code"]), []).append(finding)
    rows = []
    for (severity, code), members in sorted(groups.items()):
        first = members[0]
        place = first["column"] or first["key"] or first["file"] or ""
        told = () if share else (place, first["found"] or "", first["expected"] or "", first["fix"] or "")
        rows.append((code, severity, str(len(members)), *told))
    told = () if share else ("where (first)", "found (first)", "expected", "advice")
    return Table("What check found", ("rule", "severity", "count", *told), tuple(rows), ("count",))


def split_table(splits: Splits, share: bool) -> Table:
    """How many patients, cases and labels each fold holds, in its parts: a column per fold.

    On a shared page without what few patients of a part carry, and nothing where a part is of few patients itself.
    """
    balance = splits.balance
    left_out = small_families(balance) if share else ()
    labels = [label for label in (balance[0].labels if balance else ()) if family(label) not in left_out]
    folds: dict[int | None, list[Balance]] = {}
    for row in balance:
        folds.setdefault(row.fold, []).append(row)
    parts = (" / ".join(row.part for row in held) for held in folds.values())
    names = ("" if fold is None else f"fold {fold}: " for fold in folds)
    columns = ("number of", *(f"{name}{part}" for name, part in zip(names, parts, strict=True)))
    if share and any(row.patients < SHARED_MINIMUM for row in balance):
        return Table(BALANCE, columns, ())
    counts = {"patients": [[row.patients for row in held] for held in folds.values()]}
    counts["cases"] = [[row.cases for row in held] for held in folds.values()]
    counts |= {label: [[row.labels.get(label, 0) for row in held] for held in folds.values()] for label in labels}
    rows = tuple((name, *(" / ".join(map(str, held)) for held in found)) for name, found in counts.items())
    note = f"Left out, because a part may hold {FEW} of one kind: {', '.join(left_out)}." if left_out else ""
    return Table(BALANCE, columns, rows, columns[1:], note)


def plan_table(plan: Plan) -> Table:
    """Every planned value that has a reason."""
    rows = tuple(row for row in plan_rows(plan.to_json()) if row[2])
    return Table("Decisions and reasons", ("planned", "value", "reason"), rows)


def collapse_table(runs: Sequence[RunFolder]) -> Table:
    """Whether a head says the same for everybody; see :mod:`medmtl.training.collapse`."""
    rows = tuple(
        (
            _fold(run),
            record["collapse"]["task"],
            record["collapse"]["verdict"],
            str(record["step"]),
            number(record["collapse"]["spread"]),
            number(record["collapse"]["probe_r2"]),
            record["collapse"]["sentence"],
        )
        for run in runs
        for record in run.read_log()
        if "collapse" in record
    )
    columns = ("fold", "task", "verdict", "after step", "spread of predictions", "R² of a linear probe", "meaning")
    return Table("Do the case heads that read the image follow their labels?", columns, rows, columns[3:6])


def _within_site(scores: Scores, name: str) -> dict[str, dict[str, Any]]:
    """The metrics that change when only pairs of one fold and site are compared."""
    pooled = scores.metrics["tasks"][name]["metrics"]
    found = scores.within.get(name, {})
    return {key: estimate.to_json() for key, estimate in found.items() if estimate.value != pooled[key]["value"]}


def _confounded(body: Mapping[str, Any]) -> str:
    """Why a task is headlined by its within-site score; nothing where it is not."""
    if "headline" not in body:
        return ""
    metric = body["headline"].removesuffix("_within_site")
    pooled, alone = (value_and_interval(body["metrics"][key])[0] for key in (metric, f"{metric}_site_alone"))
    return f"confounded with the site; all pairs {pooled}; site alone {alone}"


def _empty_references(body: Mapping[str, Any], metric: str) -> str:
    """How much of a mean over masks is of empty references, where one false voxel decides; nothing without one."""
    present = body["metrics"].get(f"{metric}_present")
    if present is None:
        return ""
    counts = body["metrics"][metric]
    empty, false = counts["n_empty"], counts["n_false"]
    where = f"{metric} {value_and_interval(present)[0]} over those that are not, in {present['n']} cases"
    return (
        f"{empty} of {empty + counts['n_present']} reference masks are empty, {false} of them called falsely; {where}"
    )


def _hidden_row(name: str, patients: int, columns: Sequence[str]) -> tuple[str, ...]:
    """The row of a group that a shared page leaves out."""
    return (name, *("–",) * (len(columns) - 2), FEW if patients < SHARED_MINIMUM else NEXT)


def _tells_few(groups: Mapping[str, Sequence[ScoredCase]], hidden: Collection[str], targets: Sequence[str]) -> bool:
    """Whether counts of classes per site would tell of few patients, by themselves or taken from the totals."""
    rest = [case for site in hidden for case in groups[site]]
    told = [cases for site, cases in groups.items() if site not in hidden] + ([rest] if rest else [])
    are_classes = all(isinstance(case.truth, str) for cases in groups.values() for case in cases)
    return are_classes and holds_few_of_a_class(told, targets)


def _target_columns(cases: Sequence[ScoredCase]) -> tuple[str, ...]:
    """The classes of a text target, the mean of a numeric one, nothing for a mask."""
    if all(isinstance(case.truth, str) for case in cases):
        return tuple(sorted({case.truth for case in cases}))
    return ("mean target (SD)",) if all(isinstance(case.truth, int | float) for case in cases) else ()


def _targets(cases: Sequence[ScoredCase], columns: Sequence[str]) -> tuple[str, ...]:
    truths = [case.truth for case in cases]
    if not columns:
        return ()
    if isinstance(truths[0], str):
        counts = Counter(truths)
        return tuple(str(counts[name]) for name in columns)
    spread = number(statistics.stdev(truths)) if len(truths) > 1 else "–"
    return (f"{number(statistics.fmean(truths))} ({spread})",)


def _notes(metric: Mapping[str, Any]) -> str:
    extras = []
    for key, value in metric.items():
        if key in COUNTS:
            extras.append(COUNTS[key].format(value) if value else "")
        elif key not in KNOWN and value is not None:
            total = metric.get(OUT_OF.get(key, ""))
            extras.append(
                f"{key.removeprefix('n_').replace('_', ' ')} {_shown(value)}{f' of {total}' if total else ''}"
            )
    return _joined([metric.get("why") or "", *extras])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_shown(item)} ({key})" for key, item in value.items())
    return number(value) if isinstance(value, float) else str(value)


def _fold(run: RunFolder) -> str:
    return str(run.load_manifest()["fold"])


def _site(case: ScoredCase) -> str:
    return case.site or "not stated"


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)
