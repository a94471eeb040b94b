"""Files that are whole or absent, and readers that trust nothing.

Writing: a temporary file beside the target, fsync, rename, fsync of the folder. Whoever looks sees the old bytes or the
new ones. Reading of our own artefacts: a regular file that is no link, within a size limit, strict JSON. Failures of
the disk stay ``OSError``, with the path in it: only the caller knows whether to retry.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medmtl.errors import ArtefactError, InputError

MAX_JSON_DEPTH = 64
MAX_NAME_BYTES = 100

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}")
# Not every platform has every flag; where one is missing there is nothing to guard against.
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_BLOCK = getattr(os, "O_NONBLOCK", 0)


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file that does not exist yet and wait until it is on disk (the file, not its entry in the folder).

    Raises:
        OSError: it exists, or the disk failed; what was written may then be incomplete.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, mode)
    try:
        with _naming(path):
            view = memoryview(data)
            while view:
                count = os.write(descriptor, view)
                if count == 0:
                    raise OSError(errno.EIO, "the disk took no byte")
                view = view[count:]
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the path into errors of an open file, which do not have it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_verified(path: Path, data: bytes) -> str:
    """:func:`write_new`, then read back and compare: a disk that lies is caught. Returns the hash of ``data``.

    Raises:
        OSError: as :func:`write_new`; with EIO if what is read back differs.
    """
    write_new(path, data)
    digest = sha256_bytes(data)
    if sha256_file(path) != digest:
        raise OSError(errno.EIO, "the file read back differs from what was written", str(path))
    return digest


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file, or replace it, as a whole, and wait until that is on disk.

    Args:
        path: target; a link of that name is replaced, not followed.
        data: all of its bytes.
        mode: permissions, less the umask.

    Raises:
        OSError: nothing is promised to be on disk; the old file or the new one is in place, and no temporary file.
            So also for a pipe or a device of that name, which everybody else would lose.
    """
    path = Path(path)
    if is_special(path) and not path.is_symlink():
        raise FileExistsError(errno.EEXIST, "it is no plain file", str(path))
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        write_new(temporary, data, mode=mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(path.parent)


def is_special(path: Path) -> bool:
    """Whether something stands there by that name that is neither a plain file nor a folder, such as a link."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed :func:`write_atomic` left. Only for a folder that nobody else writes to."""
    for entry in os.scandir(folder):
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)


def append_line(path: Path, text: str) -> None:
    """Append one line with one write; a line that fails half-way is taken back.

    A line left torn by a kill is closed first, so that the new one starts on its own.

    Raises:
        ValueError: ``text`` has a line break.
        OSError: the disk failed, or the path is a link.
    """
    if "\n" in text or "\r" in text:
        raise ValueError("a line cannot hold a line break")
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINK, 0o600)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end:
            os.lseek(descriptor, end - 1, os.SEEK_SET)
        torn = end > 0 and os.read(descriptor, 1) != b"\n"
        line = ("\n" if torn else "") + text + "\n"
        data = line.encode()
        try:
            with _naming(path):
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, "the line was written in part only")
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Wait until what was written to a file, by whoever, is on disk."""
    descriptor = os.open(path, os.O_RDWR | NO_LINK)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Wait until names created, renamed or removed in a folder are on disk. Does nothing on Windows, which cannot."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for the owner only (0700). One that exists is left as it is.

    Raises:
        OSError: it cannot be made, or something else has that name.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(folder.parent)


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """All bytes of one of our own files.

    Raises:
        ArtefactError: missing, not a regular file (a link, folder or device), or larger than ``limit_bytes``.
        OSError: the disk failed.
    """
    try:
        with open(path, "rb", opener=_open_no_link) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ArtefactError(f"{path} is not a regular file", code="B159")
            if found.st_size > limit_bytes:
                raise ArtefactError(
                    f"{path} has {found.st_size} bytes, more than the {limit_bytes} it may have", code="B161"
                )
            with _naming(path):
                return file.read(found.st_size)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtefactError(f"{path} is missing", code="B147") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise ArtefactError(f"{path} is a link, a folder or a device, not a regular file", code="B159") from None
        raise


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | NO_LINK | _NO_BLOCK)


def json_bytes(obj: Any) -> bytes:
    """Deterministic JSON: order of insertion, indent 1, ASCII, a line break at the end.

    Raises:
        ValueError: NaN or Inf, which JSON does not have.
        TypeError: something JSON does not have.
    """
    return (json.dumps(obj, indent=1, allow_nan=False) + "\n").encode("ascii")


def write_json(path: Path, obj: Any) -> None:
    """Write :func:`json_bytes` by :func:`write_atomic`, for the owner only (0600)."""
    write_atomic(path, json_bytes(obj))


def parse_json(data: bytes, name: str | Path) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, finite numbers, at most ``MAX_JSON_DEPTH`` levels.

    Args:
        data: the text.
        name: what to call it in a message.

    Raises:
        ArtefactError: it is anything else; its code is B027 for the syntax, B028 for a duplicate key or a number that
            is not finite, and B029 for the depth.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_finite)
        deep = _depth(value) > MAX_JSON_DEPTH
    except RecursionError:
        deep = True
    except _AmbiguousJson as error:
        raise ArtefactError(f"{name} is not valid JSON: {error}", code="B028") from None
    except ValueError as error:
        raise ArtefactError(f"{name} is not valid JSON: {error}", code="B027") from None
    if deep:
        raise ArtefactError(f"{name} is not valid JSON: more than {MAX_JSON_DEPTH} levels", code="B029")
    return value


class _AmbiguousJson(ValueError):
    """Readers of JSON differ on what it says."""


def read_json(path: Path, *, limit_bytes: int) -> Any:
    """The value of a JSON file of ours; see :func:`read_bytes` and :func:`parse_json` for what is refused."""
    return parse_json(read_bytes(path, limit_bytes=limit_bytes), path)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _AmbiguousJson(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _AmbiguousJson(f"{text} is not a finite number")
    return number


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(_depth, children), default=0)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in parts; links are followed."""
    with open(path, "rb") as file, _naming(path):
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(case_id: str) -> str:
    """A file name for a case id: different ids have different names, and no name is a path, a link or an option.

    Characters outside ``[A-Za-z0-9._-]``, and a leading ``.`` or ``-``, are percent-encoded (UTF-8). Over 100 bytes it
    becomes ``HEAD%-HASH`` of exactly 100; ``%-`` occurs in no encoded id.

    Raises:
        InputError: the id is empty.
    """
    if not case_id:
        raise InputError("a case id must not be empty")
    name = quote(case_id, safe="", errors="surrogatepass").replace("~", "%7E")
    if name[0] in ".-":
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) <= MAX_NAME_BYTES:
        return name
    tail = "%-" + sha256_bytes(case_id.encode("utf-8", "surrogatepass"))[:16]
    return name[: MAX_NAME_BYTES - len(tail)] + tail
