from __future__ import annotations

import io
import logging
import sys
import warnings
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from medmtl import console
from medmtl.console import (
    Screen,
    answer,
    config_findings,
    escaped,
    finding_lines,
    kind_lines,
    metric_lines,
    remark,
    table,
)
from medmtl.data.finding import Finding
from medmtl.errors import ConfigError


def test_plain_progress_is_one_line_per_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        for done in range(1, 1001):
            screen.progress("train", done, 1000, "loss 1.0")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"train {done}/1000  loss 1.0" for done in range(100, 1001, 100)]


def test_each_fold_is_told_anew(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        for done in [*range(1, 21), *range(1, 21)]:
            screen.progress("train", done, 20)
    assert capsys.readouterr().err.splitlines() == 2 * [f"train {done}/20" for done in range(2, 21, 2)]


def test_work_of_unknown_length_is_told_by_the_clock(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("medmtl.console.time.monotonic", lambda: next(now))
    with Screen() as screen:
        for done in range(1, 10):
            screen.progress("train", done, 0)
    assert capsys.readouterr().err.splitlines() == ["train 3/?", "train 6/?", "train 9/?"]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["an information", "warning: a warning"]),
        ({"quiet": True}, ["warning: a warning"]),
        ({"verbose": True}, ["a detail", "an information", "warning: a warning"]),
    ],
)
def test_quiet_and_verbose_choose_what_is_told(
    options: dict[str, bool], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("medmtl.somewhere")
    with Screen(**options) as screen:
        logger.debug("a detail")
        logger.info("an information")
        logger.warning("a\nwarning")
        if screen.quiet:
            screen.progress("train", 10, 10)
    assert capsys.readouterr().err.splitlines() == shown


def test_warnings_of_other_packages_are_details(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with Screen(verbose=verbose), warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("from elsewhere", stacklevel=1)
        logging.captureWarnings(False)
        assert ("from elsewhere" in capsys.readouterr().err) == verbose


def test_loggers_are_left_as_they_were() -> None:
    logger = logging.getLogger("medmtl")
    before = (logger.level, list(logger.handlers))
    with Screen(verbose=True):
        assert (logger.level, list(logger.handlers)) != before
    assert (logger.level, list(logger.handlers)) == before


def test_a_terminal_gets_bars_and_lines_above_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "Console", partial(Console, force_terminal=True, width=100))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Screen() as screen:
        for done in range(1, 5):
            screen.progress("train", done, 4, "loss [red]")
        screen.progress("train", 1, 4)
        logging.getLogger("medmtl").warning("careful [bold]")
    err = capsys.readouterr().err
    assert "4/4" in err
    assert "loss [red]" in err
    assert "warning: careful [bold]" in err


@pytest.mark.covers("B168")
@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_no_setting_of_the_shell_draws_bars_into_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "1")
    with Screen() as screen:
        screen.progress("train", 1, 1)
        logging.getLogger("medmtl").warning("careful")
    assert capsys.readouterr().err == "train 1/1\nwarning: careful\n"


@pytest.mark.covers("B167")
def test_work_goes_on_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    remark("lost")
    with Screen() as screen:
        screen.progress("train", 1, 1)
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        answer("an answer that is lost is an error")


@pytest.mark.covers("B166", "B168")
def test_names_cannot_steer_the_terminal_or_break_its_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert escaped("a\x1b[31mb\u202ec\nd") == "a\\x1b[31mb\\u202ec\nd"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    answer("Größe \udcff")
    stream.flush()
    assert stream.buffer.getvalue() == b"Gr\\xf6\\xdfe \\udcff\n"


@pytest.mark.covers("B131", "B132")
def test_the_faults_of_a_configuration_are_findings_each() -> None:
    faults = [ConfigError("unknown key", key="a.b", line=3, code="B132"), ConfigError("syntax", line=4, code="B131")]
    assert config_findings(ConfigError.of(faults)) == [
        Finding("B132", "reject", key="a.b", line=3, fix="unknown key"),
        Finding("B131", "reject", line=4, fix="syntax"),
    ]


def test_a_table_is_aligned() -> None:
    assert table([("a", "bb", "c"), ("ddd", "e", ""), ("f", "g", "long text")]) == (
        "a    bb  c\nddd  e\nf    g   long text"
    )


def test_findings_are_grouped_by_code_rejects_first_and_twenty_of_each() -> None:
    found = [Finding("B014", "warn", found="extra")]
    found += [Finding("B032", "reject", row=row, found="nothing") for row in range(2, 25)]
    lines = finding_lines(found)
    assert lines[0] == "B032 reject: 23"
    assert lines[1] == "  row 2: found nothing"
    assert lines[20:] == ["  row 21: found nothing", "  and 3 more", "B014 warn: 1", "  found extra"]


@pytest.mark.covers("B105")
def test_many_empty_masks_are_one_line_and_a_few_are_told_with_their_rows() -> None:
    def empty(column: str, count: int) -> list[Finding]:
        more = {"found": "no voxel labelled", "fix": "kept as a case with nothing to find"}
        return [Finding("B105", "warn", case=f"c{row}", row=row, column=column, **more) for row in range(2, count + 2)]

    tables = Finding("B105", "warn", key="tasks.nodules", found="3 cases without a row")
    lines = finding_lines([*empty("lesion", 15), *empty("organ", 2), tables], {"lesion": 35, "organ": 40})
    assert lines == [
        "B105 warn: 18",
        "  column lesion: 15 of 35 masks are empty; each is kept as a case with nothing to find",
        "  row 2, case c2, column organ: found no voxel labelled; kept as a case with nothing to find",
        "  row 3, case c3, column organ: found no voxel labelled; kept as a case with nothing to find",
        "  key tasks.nodules: found 3 cases without a row",
    ]
    assert finding_lines(empty("lesion", 6))[1].startswith("  column lesion: 6 masks are empty; ")


def test_metrics_show_what_could_not_be_computed_and_why() -> None:
    dice = {"value": 0.87654, "ci95": [0.8, 0.9], "ci": "bca", "n": 40, "better": "higher", "unit": None}
    metrics: dict[str, Any] = {"dice": dice, "hd95_mm": {"value": None, "why": "no mask", "n": 0}}
    metrics["volume_error_ml"] = {**dice, "value": 1.5, "unit": "ml", "ci95": None, "why": "too few"}
    task = {"kind": "segmentation", "labelled": 40, "metrics": metrics}
    lines = metric_lines({"split": "val", "cases": 41, "note": "a note", "tasks": {"heart": task}})
    assert lines[:3] == ["val: 41 cases; a note", "", "heart (segmentation, 40 labelled)"]
    assert [line.split() for line in lines[3].splitlines()] == [
        ["metric", "value", "95", "%", "interval", "n"],
        ["dice", "0.8765", "0.8", "to", "0.9", "40"],
        ["hd95_mm", "-", "-", "0", "no", "mask"],
        ["volume_error_ml", "1.5", "ml", "-", "40", "too", "few"],
    ]


def test_a_task_confounded_with_the_site_is_shown_by_its_within_site_score_first() -> None:
    found = {"ci95": [0.5, 0.9], "ci": "delong-logit", "n": 40, "better": "higher", "unit": None}
    values = {"auc": 0.85, "brier": 0.2, "auc_within_site": 0.55, "auc_site_alone": 0.86}
    task: dict[str, Any] = {"kind": "classification", "labelled": 40, "primary": "auc", "headline": "auc_within_site"}
    task["metrics"] = {name: {**found, "value": value} for name, value in values.items()}
    tasks = {"grade": task, "other": {key: value for key, value in task.items() if key != "headline"}}
    lines = metric_lines({"split": "val", "cases": 40, "note": "a note", "tasks": tasks})
    assert lines[3] == "the site alone predicts this target better than chance: read the within-site score first"
    told = [line.split()[0] for line in lines[4].splitlines()]
    assert told == ["metric", "auc_within_site", "auc_site_alone", "auc", "brier"]
    assert lines[6] == "other (classification, 40 labelled)"
    assert [line.split()[0] for line in lines[7].splitlines()] == ["metric", *values]


def test_kinds_are_listed_with_their_options() -> None:
    option = {"name": "lr", "type": "float", "default": 1.0, "required": False, "help": "how fast."}
    needed = {"name": "column", "type": "str", "default": None, "required": True, "help": ""}
    lines = kind_lines({"tasks": [{"name": "x", "summary": "An x.", "options": [option, needed]}], "sharing": []})
    assert lines == [
        "tasks",
        "  x: An x.",
        "    lr: float, default 1.0; how fast.",
        "    column: str, required",
        "sharing",
    ]
