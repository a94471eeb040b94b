"""The log of a run: one JSON object per line, appended with one write each."""

from __future__ import annotations

import errno
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmtl.disk import FULL, why
from medmtl.files import append_line, fsync_file, read_bytes, write_atomic

MAX_LOG_BYTES = 1 << 30

_log = logging.getLogger(__name__)


class RunLog:
    """``log.jsonl`` of a run.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unwritten: list[str] = []
        self._fails = False
        self._suspect = False

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line to ``log.jsonl``; what is not finite is written as null.

        A line that the disk does not take is kept in memory and written with the next one: a full disk does not end a
        training before its next commit.

        Raises:
            OSError: for any other cause, such as a folder that is gone or a link in the log's place.
        """
        self._unwritten.append(json.dumps(_finite(record), allow_nan=False))
        try:
            self._write_lines()
        except OSError as error:
            if error.errno not in (*FULL, errno.EIO):
                raise
            if not self._fails:
                _log.warning("the log could not be written (%s); trying again until the next commit", why(error))
            self._fails = True
            self._suspect |= error.errno == errno.EIO
        else:
            self._fails = False

    def _write_lines(self) -> None:
        while self._unwritten:
            append_line(self.path, self._unwritten[0])
            del self._unwritten[0]

    def sync(self) -> None:
        """Wait until the log is on disk. For a commit: what leads to a checkpoint must not be lost after it.

        Raises:
            OSError: the log is not on disk.
        """
        self._write_lines()
        if self._suspect:
            # after a failed sync the system may call the next one a success, although the bytes are lost
            write_atomic(self.path, read_bytes(self.path, limit_bytes=MAX_LOG_BYTES))
            self._suspect = False
            return
        try:
            fsync_file(self.path)
        except OSError:
            self._suspect = True
            raise

    def read(self) -> list[dict[str, Any]]:
        """All records; lines that a kill or a full disk left torn are left out, and counted in a warning."""
        records: list[dict[str, Any]] = []
        lines = read_bytes(self.path, limit_bytes=MAX_LOG_BYTES).decode("ascii", "replace").splitlines()
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                records.append(record)
        if len(records) < len(lines):
            _log.warning("%s: %d damaged lines are left out", self.path, len(lines) - len(records))
        return records

    def truncate(self, step: int) -> None:
        """Drop records beyond ``step``, so that a resumed log equals the uninterrupted one. Hold the lock."""
        kept = [record for record in self.read() if record.get("step", 0) <= step]
        write_atomic(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
