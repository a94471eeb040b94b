"""How the program talks: answers on standard output, everything about the work on standard error."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from medmtl.data.finding import Finding
from medmtl.errors import ConfigError
from medmtl.launched import is_first

if TYPE_CHECKING:
    from medmtl.checking import Expectation
    from medmtl.metrics.expected_width import ExpectedWidth
    from medmtl.studies import StepProfile

PER_CODE = 20  # findings shown of each code; all of them are in findings.json
EMPTY_MASK = "B105"
FEW = 5  # empty masks that are told one by one
SILENCE_SECONDS = 30.0  # longest without a plain line
REDRAW_SECONDS = 0.1
SEVERITIES = ("reject", "warn", "fixed")


def escaped(text: str) -> str:
    """Text without control characters, so that a name in a table cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def answer(text: str) -> None:
    """Write to standard output; of several processes the first one answers."""
    if not is_first():
        return
    _write(sys.stdout, text)


def remark(text: str) -> None:
    """Write to standard error; work goes on when nobody can read it any more."""
    with suppress(OSError):
        _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    # what the stream cannot encode, such as the bytes of a foreign file name, is shown by its number
    known = escaped(text).encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
    typer.echo(known, file=stream)


def open_missing_streams() -> None:
    """Give a stream that the caller closed (``>&-``) the null device: it is None, and a file would take its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def let_go_of_streams() -> None:
    """Throw away what cannot be written: the interpreter would complain of it at its end, with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Screen(logging.Handler):
    """Progress and log lines of one command; a context manager.

    Bars on a terminal, plain lines elsewhere. Bars are drawn when work reports and by no thread of their own: loader
    workers are forked from this process, and a lock that a thread holds at that moment is never released in them. Of
    several processes the first one draws and tells; the others tell what ends them.

    Args:
        quiet: show warnings and errors only.
        verbose: show details, and the warnings of other packages.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        super().__init__()
        self.quiet = quiet or not is_first()
        self._loggers = [logging.getLogger(name) for name in ("medmtl", *(["py.warnings"] if verbose else []))]
        self._level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
        self._level = self._level if is_first() else logging.ERROR
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}  # stage -> units at the last plain line
        self._drawn = time.monotonic()

    def __enter__(self) -> Screen:
        logging.captureWarnings(True)
        for logger in self._loggers:
            logger.addHandler(self)
            logger.setLevel(self._level)
        # not the console's own guess: FORCE_COLOR and its like would put bars into files
        if sys.stderr.isatty() and not self.quiet:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            with suppress(OSError):
                self._bars.stop()
        for logger in self._loggers:
            logger.removeHandler(self)
            logger.setLevel(logging.NOTSET)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a log record as one plain line, above the bars if there are any; below it the findings of a check."""
        text = " ".join(record.getMessage().split())
        text = f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text
        if findings := getattr(record, "findings", ()):
            text = "\n".join([text, *finding_lines(findings, getattr(record, "label_files", None))])
        if self._bars is None:
            remark(text)
        else:
            with suppress(OSError):
                self._console.print(escaped(text), markup=False, soft_wrap=True)

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show how far work is; the library calls it. ``total`` is 0 where it is not known yet."""
        if self._bars is not None:
            with suppress(OSError):
                self._draw(self._bars, stage, done, total, note)
        elif not self.quiet:
            self._line(stage, done, total, note)

    def _draw(self, bars: Progress, stage: str, done: int, total: int, note: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = bars.add_task(stage, total=None, note="")
        elif done < bars.tasks[self._tasks[stage]].completed:
            bars.reset(self._tasks[stage])  # the next fold
        now = time.monotonic()
        due = done == total or now - self._drawn >= REDRAW_SECONDS
        bars.update(self._tasks[stage], completed=done, total=total or None, note=escaped(note), refresh=due)
        self._drawn = now if due else self._drawn

    def _line(self, stage: str, done: int, total: int, note: str) -> None:
        before = self._shown.get(stage, 0)
        before = before if done >= before else 0  # the next fold
        now = time.monotonic()
        new_tenth = total > 0 and 10 * done // total > 10 * before // total
        if new_tenth or now - self._drawn >= SILENCE_SECONDS:
            remark(f"{stage} {done}/{total or '?'}" + (f"  {note}" if note else ""))
            before, self._drawn = done, now
        self._shown[stage] = before


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns; the last column may be of any length."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def finding_lines(findings: Iterable[Finding], label_files: Mapping[str, int] | None = None) -> list[str]:
    """Findings grouped by code, what was rejected first, the first 20 of each code; many empty masks are one line.

    Args:
        findings: of a check.
        label_files: column -> cases that have a file in it, where that is known.
    """
    groups: dict[tuple[int, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[SEVERITIES.index(finding.severity), finding.code].append(finding)
    lines: list[str] = []
    for (severity, code), found in sorted(groups.items()):
        lines.append(f"{code} {SEVERITIES[severity]}: {len(found)}")
        many, found = _empty_masks(found, label_files or {}) if code == EMPTY_MASK else ([], found)
        lines += many
        lines += [f"  {finding.sentence().removeprefix(f'[{code}] ')}" for finding in found[:PER_CODE]]
        if len(found) > PER_CODE:
            lines.append(f"  and {len(found) - PER_CODE} more")
    return lines


def _empty_masks(found: Sequence[Finding], label_files: Mapping[str, int]) -> tuple[list[str], list[Finding]]:
    """A line for each column with many, and the other findings: most cohorts have cases with nothing to find."""
    counts = Counter((finding.column or "", finding.fix) for finding in found if finding.case is not None)
    many = {key: count for key, count in counts.items() if count > FEW}
    lines = []
    for (column, fix), count in many.items():
        of = f" of {label_files[column]}" if column in label_files else ""
        lines.append(f"  column {column}: {count}{of} masks are empty; each is {fix}")
    return lines, [finding for finding in found if (finding.column or "", finding.fix) not in many]


def verdict(findings: Sequence[Finding], *, refused: bool, headers: bool) -> str:
    """The closing line of a check; ``headers`` says that it read no voxels."""
    rejected, warned, fixed = (sum(finding.severity == name for finding in findings) for name in SEVERITIES)
    judged = "not fit for training" if refused else "fit for training"
    if headers and not refused:
        judged = "no fault in the table and the headers"
    unread = "; voxels were not read, run the check without --headers before training" if headers else ""
    return f"{rejected} rejected, {warned} warned about, {fixed} repaired: {judged}{unread}"


def config_findings(error: ConfigError) -> list[Finding]:
    """The faults of a configuration as findings."""
    return [
        Finding(fault.code or "", "reject", key=fault.key, line=fault.line, fix=fault.sentence)
        for fault in error.faults
    ]


def label_lines(labels: Mapping[str, str]) -> list[str]:
    """What was read as labels, one line per task."""
    return [f"{name}: {held}" for name, held in labels.items()] + ([""] if labels else [])


def expectation_lines(expectations: Iterable[Expectation]) -> list[str]:
    """One table per task: labelled cases of each part of the split, and the width of the interval to expect."""
    lines: list[str] = []
    for expected in expectations:
        first = expected.parts[0].width
        shared = len({part.width.assumption for part in expected.parts}) == 1
        about = f"; width of the 95 % interval of {first.metric}" if first.metric else ""
        about += f" {first.assumption}" if about and shared else ""
        rows = [("scored on", "cases labelled", first.counted, "width", "")]
        rows += [_expectation_row(part.name, part.labelled, part.width, told=not shared) for part in expected.parts]
        lines += [f"{expected.task} ({expected.kind}){about}", table(rows), ""]
    return lines


def _expectation_row(
    name: str, labelled: int, expected: ExpectedWidth, *, told: bool
) -> tuple[str, str, str, str, str]:
    """A part of the split; ``told`` where what its width rests on is its own."""
    notes = [expected.assumption if told else "", expected.why or ""]
    rarer = "-" if expected.rarer is None else str(expected.rarer)
    return (
        name,
        str(labelled),
        rarer,
        "-" if expected.width is None else f"{expected.width:.2g}",
        "; ".join(filter(None, notes)),
    )


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The content of ``metrics.json`` as one table per task; where the site alone predicts its target, that is said,
    and the within-site score comes first.
    """
    lines = [f"{metrics['split']}: {metrics['cases']} cases; {metrics['note']}"]
    for name, task in metrics["tasks"].items():
        rows = [("metric", "value", "95 % interval", "n", "")]
        lines += ["", f"{name} ({task['kind']}, {task['labelled']} labelled)"]
        first = []
        if "headline" in task:
            first = [task["headline"], task["headline"].removesuffix("_within_site") + "_site_alone"]
            lines.append("the site alone predicts this target better than chance: read the within-site score first")
        entries = dict.fromkeys([*first, *task["metrics"]])
        rows += [_metric_row(metric, task["metrics"][metric]) for metric in entries]
        lines.append(table(rows))
    return lines


def _metric_row(name: str, entry: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    value = "-" if entry["value"] is None else f"{entry['value']:.4g}" + (f" {entry['unit']}" if entry["unit"] else "")
    low_high = entry.get("ci95")
    interval = "-" if low_high is None else f"{low_high[0]:.4g} to {low_high[1]:.4g}"
    return name, value, interval, str(entry["n"]), entry.get("why", "")


def profile_lines(profile: StepProfile) -> list[str]:
    """What a profile found, as a table and one line."""
    rows = [("part of a step", "ms", "share")]
    rows += [
        (name, f"{1000 * seconds:.1f}", f"{100 * seconds / profile.seconds:.1f} %")
        for name, seconds in profile.parts.items()
    ]
    rows.append(("all", f"{1000 * profile.seconds:.1f}", f"{profile.samples / profile.seconds:.1f} samples/s"))
    memory = f"peak memory {profile.peak_bytes / 1e9:.2f} GB (planned {profile.planned_bytes / 1e9:.2f} GB)"
    return [table(rows), "", f"mean of {profile.steps} steps; {memory}"]


def kind_lines(kinds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Every kind of every family with its options, for reading."""
    lines: list[str] = []
    for family, entries in kinds.items():
        lines.append(family)
        for kind in entries:
            lines.append(f"  {kind['name']}: {kind['summary']}")
            for option in kind["options"]:
                value = "null" if option["default"] is None else option["default"]
                default = "required" if option["required"] else f"default {value}"
                lines.append(f"    {option['name']}: {option['type']}, {default}; {option['help']}".rstrip("; "))
    return lines
