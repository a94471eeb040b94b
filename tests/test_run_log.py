"""Lines that the disk does not take wait for the next commit; a sync that failed is never asked again."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from medmtl import run_log
from medmtl.run_log import RunLog


def failing(number: int, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def fail(path: Path, *arguments: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(run_log, what, fail)


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    (tmp_path / "log.jsonl").touch()
    return RunLog(tmp_path / "log.jsonl")


@pytest.mark.covers("F19")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_lines_that_are_not_taken_come_later_in_order_and_one_warning_says_so(
    log: RunLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    log.write({"step": 1})
    with monkeypatch.context() as patch:
        failing(number, patch, "append_line")
        log.write({"step": 2})
        log.write({"step": 3})
        with pytest.raises(OSError) as caught:
            log.sync()
        assert caught.value.errno == number
    assert len(caplog.records) == 1
    log.sync()
    log.write({"step": 4})
    assert [record["step"] for record in log.read()] == [1, 2, 3, 4]


@pytest.mark.covers("F28", "F29", "F68")
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOENT, errno.ELOOP, errno.EPERM])
def test_what_time_does_not_mend_is_raised_at_once(log: RunLog, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing(number, monkeypatch, "append_line")
    with pytest.raises(OSError, match=r"log\.jsonl"):
        log.write({"step": 1})


@pytest.mark.covers("F24")
def test_after_a_failed_sync_the_log_is_written_anew(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write({"step": 1})
    with monkeypatch.context() as patch:
        failing(errno.EIO, patch, "fsync_file")
        with pytest.raises(OSError):
            log.sync()
    before = log.path.stat().st_ino
    log.sync()
    assert log.path.stat().st_ino != before
    log.sync()
    assert [record["step"] for record in log.read()] == [1]


@pytest.mark.covers("F24")
@pytest.mark.parametrize(("number", "anew"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_after_a_line_that_the_disk_itself_failed_on_the_log_is_written_anew(
    log: RunLog, monkeypatch: pytest.MonkeyPatch, number: int, anew: bool
) -> None:
    with monkeypatch.context() as patch:
        failing(number, patch, "append_line")
        log.write({"step": 1})
    before = log.path.stat().st_ino
    log.sync()
    assert (log.path.stat().st_ino != before) is anew
    assert [record["step"] for record in log.read()] == [1]
