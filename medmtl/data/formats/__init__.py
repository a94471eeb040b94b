"""File formats: one module per format; here is what image formats share, the one way to open a file.

A file is opened once, hashed as its bytes come in, and read to the end of its stream, so that a truncated or damaged
one is never taken for a whole one. The codes are those of the catalogue in ``docs/reliability.md``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl.data.finding import Fault
from medmtl.data.formats.gzip_stream import GzipStream
from medmtl.disk import why
from medmtl.errors import InputError, WorkError

CHUNK = 1 << 20

_GZIP = b"\x1f\x8b"
_DEFLATE_RATIO = 1032  # deflate cannot expand further: a bound on what a compressed file may hold
_FOREIGN = {
    b"<": "an HTML or XML page",
    b"version https://git-lfs": "a Git LFS pointer",
    b"\x00\x05\x16\x07": "an AppleDouble file of macOS",
    b"PK\x03\x04": "a zip archive",
}


class ImageError(Fault, InputError):
    """An image or label file was refused.

    Args:
        path: the file; the message shows its name only.
        code: id of the rule, such as ``B051``.
        found, expected, fix: as in :class:`medmtl.data.finding.Finding`.
    """

    code: str

    def __init__(self, path: Path, code: str, *, found: str, expected: str, fix: str) -> None:
        message = f"[{code}] {path.name}: found {found}; expected {expected}; {fix}"
        super().__init__(message, code, found=found, expected=expected, fix=fix)
        self.path = path


class _Hashed(io.RawIOBase):
    """An open file whose bytes are hashed as they are read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        return count


@dataclass(frozen=True)
class Source:
    """An open file, read once from its start to its end; what is read is uncompressed.

    Attributes:
        path: the file.
        capacity: how many bytes it can give at most, known before reading.
    """

    path: Path
    capacity: int
    _stream: io.BufferedIOBase | GzipStream
    _hashed: _Hashed

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer where the stream ends before."""
        buffer = bytearray(size)
        return bytes(buffer[: self.fill(memoryview(buffer))])

    def fill(self, view: memoryview) -> int:
        """Read into a buffer until it is full or the stream ends; returns how many bytes it holds."""
        filled = 0
        while filled < len(view) and (count := self._stream.readinto(view[filled : filled + CHUNK])):
            filled += count
        return filled

    def finish(self, limit: int) -> int:
        """Read to the end, which verifies a compressed stream, and count the bytes that were left.

        Counting stops above ``limit``.
        """
        if isinstance(self._stream, GzipStream):
            return self._stream.finish(limit)
        count = 0
        while count <= limit and (more := len(self._stream.read(CHUNK))):
            count += more
        return count

    def sha256(self) -> str:
        """Hash of the file's own bytes; of the whole file once :meth:`finish` has seen its end."""
        return self._hashed.digest.hexdigest()


@contextmanager
def opened(path: Path, ending: str) -> Iterator[Source]:
    """Open a file for one read; a fault of the file or its stream, also one met later, becomes an :class:`ImageError`.

    Args:
        path: the file; its name ends in ``ending``, or in ``ending`` and ``.gz`` if it is compressed.
        ending: such as ``.nii``, in lower case; capitals in the name are accepted.

    Raises:
        ImageError: if it is missing, no regular file, unreadable, another type of file or a damaged stream.
        WorkError: if the file system fails.
    """
    whole, again = "a whole gzip stream", "copy or export the file again"
    try:
        yield from _opened(path, ending)
    except EOFError:
        raise ImageError(path, "B051", found="a stream that is cut off", expected=whole, fix=again) from None
    except zlib.error as error:
        if any(check in str(error) for check in ("incorrect data check", "incorrect length check")):
            raise ImageError(path, "B053", found="a wrong checksum or length", expected=whole, fix=again) from None
        raise ImageError(path, "B052", found="a damaged stream", expected=whole, fix=again) from None
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(path, "B032", found="nothing", expected="a file", fix="correct the path") from None
    except PermissionError as error:
        raise ImageError(
            path, "B037", found=str(error.strerror), expected="a readable file", fix="allow reading"
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError(path, "B035", found="a loop of links", expected="a file", fix="correct the link") from None
        if error.errno == errno.ENAMETOOLONG:
            most = "at most 255 bytes in a name and 4096 in a path"
            raise ImageError(path, "B041", found="a longer one", expected=most, fix="shorten the name") from None
        error.filename = error.filename or str(path)  # errors of an open file do not have it
        raise WorkError(f"reading failed: {why(error)}") from error


def _opened(path: Path, ending: str) -> Iterator[Source]:
    name = path.name.lower()
    if not name.endswith((ending, f"{ending}.gz")):
        raise ImageError(
            path, "B050", found="another ending", expected=f"{ending} or {ending}.gz", fix="convert the file"
        )
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would block until somebody writes to it.
        raise ImageError(path, "B036", found="no regular file", expected="a regular file", fix="correct the path")
    with open(path, "rb", buffering=0) as file:
        hashed = _Hashed(file)
        raw = io.BufferedReader(hashed, CHUNK)
        start = raw.peek(len(_GZIP))
        packed = start.startswith(_GZIP)
        _refuse_foreign(path, start)
        if packed != name.endswith(".gz"):
            found = f"{'a' if packed else 'no'} gzip stream"
            raise ImageError(path, "B055", found=found, expected="content as the name ends", fix="rename the file")
        stream: io.BufferedIOBase | GzipStream = GzipStream(raw) if packed else raw
        yield Source(path, status.st_size * (_DEFLATE_RATIO if packed else 1), stream, hashed)


def _refuse_foreign(path: Path, start: bytes) -> None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    found = next(
        (kind for magic, kind in _FOREIGN.items() if text.startswith(magic)), None if start else "an empty file"
    )
    if found:
        raise ImageError(path, "B050", found=found, expected="an image", fix="fetch or export the file again")
