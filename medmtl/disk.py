"""What a disk can take, whom a folder is open to, and what it means when the system says no."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from medmtl.errors import ArtefactError, InputError, MachineError
from medmtl.files import fsync_folder, write_new
from medmtl.folder_lock import FolderLock

if sys.platform != "win32":
    import resource

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is well, but takes no more of this

MAX_NAME = 240  # bytes: file systems take 255, and what is staged beside a run has a longer name than it
MAX_PATH = 3072  # bytes: systems take 4096, and results lie below it

_ADVICE = {
    errno.ENOSPC: "free space or inodes on that disk",
    errno.EDQUOT: "free space, or have your quota on that disk raised",
    errno.EIO: "the disk fails: check it before you go on",
    errno.EROFS: "the disk is read-only: mount it for writing",
    errno.EACCES: "allow it, or choose another folder",
    errno.EPERM: "take away what forbids it, such as the immutable attribute, or choose another folder",
    errno.ENOENT: "put back what was moved, removed or unmounted",
    errno.ELOOP: "it is a link: put a plain file or folder in its place",
    errno.ESTALE: "mount the network drive anew",
    errno.ETIMEDOUT: "the network drive does not answer: look at its connection",
}


def why(error: OSError) -> str:
    """What failed, where, and what to do about it, in one sentence without its full stop."""
    words = error.strerror or str(error)
    place = f": {error.filename}" if error.filename is not None else ""
    advice = _limit(error.errno) or _ADVICE.get(error.errno or 0, "")
    return f"{words}{place}{'; ' if advice else ''}{advice}"


def _limit(number: int | None) -> str:
    if sys.platform == "win32" or number not in (errno.EMFILE, errno.EFBIG):
        return ""
    name, limit = ("n", resource.RLIMIT_NOFILE) if number == errno.EMFILE else ("f", resource.RLIMIT_FSIZE)
    soft = resource.getrlimit(limit)[0]
    if number == errno.EMFILE:
        return f"this process may have {soft} files open: raise ulimit -{name}, or lower plan.workers"
    return f"this process may write files of {soft} bytes: raise ulimit -{name}" if soft > 0 else "use another disk"


@dataclass(frozen=True)
class Room:
    """What this user can still write where a path is or will be.

    Attributes:
        device: number of the file system.
        bytes: free.
        files: free inodes; None where the file system does not count them.
    """

    device: int
    bytes: int
    files: int | None


def room_at(path: Path) -> Room:
    """The room on the disk of ``path``, which need not exist."""
    folder = _existing(path)
    if not hasattr(os, "statvfs"):
        return Room(os.stat(folder).st_dev, shutil.disk_usage(folder).free, None)
    found = os.statvfs(folder)
    return Room(os.stat(folder).st_dev, found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def refuse_long(path: Path) -> None:
    """Refuse a path of results that is too long, or has a name too long in it of something that does not exist yet.

    Raises:
        InputError: naming the beginning of the name.
    """
    whole = _bytes(str(path.absolute()))
    for part in (path, *path.parents):
        name = _bytes(part.name)
        if whole > MAX_PATH or (name > MAX_NAME and not os.path.lexists(part)):
            raise InputError(
                f"{part.name[:40]}... is too long: {name} bytes of at most {MAX_NAME}, in a path of {whole} bytes of "
                f"at most {MAX_PATH}; choose a shorter place",
                code="B164",
            )


def _bytes(name: str) -> int:
    return len(name.encode(errors="replace"))


def refuse_file(folder: Path) -> None:
    """Refuse a file, or what would lie inside one, where a folder of results is to be made, or a name that is too long.

    Raises:
        InputError: naming the file or folder.
    """
    refuse_long(folder)
    for path in (folder, *folder.parents):
        if os.path.lexists(path) and not path.is_dir():
            raise InputError(f"{path} is a file; name a new or an empty folder")


def probe(place: Path) -> None:
    """Refuse a place on whose disk a file cannot be made, synced, renamed and locked; nothing is left there.

    Raises:
        MachineError: naming what the disk refused.
    """
    trial = _existing(place) / f".tmp-{secrets.token_hex(8)}"
    try:
        trial.mkdir(mode=0o700)
        write_new(trial / "made", b"medmtl\n")
        os.rename(trial / "made", trial / "renamed")
        fsync_folder(trial)
        with FolderLock(trial):
            pass
    except OSError as error:
        raise MachineError(f"nothing can be written at {place}: {why(error)}", code="B044") from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def is_open_to_others(folder: Path) -> bool:
    """Whether other users could replace what lies in a folder: write permission without the sticky bit."""
    mode = os.stat(folder).st_mode
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) and not mode & stat.S_ISVTX


def refuse_foreign(folder: Path, key: str) -> None:
    """Refuse a folder that somebody else could have filled.

    Args:
        folder: an existing folder.
        key: of the configuration, for the message.

    Raises:
        ArtefactError: it belongs to another user, or everybody may write to it.
    """
    if sys.platform == "win32":
        return
    found = os.stat(folder)
    if found.st_uid != os.geteuid():
        who = f"belongs to user {found.st_uid}, and this is user {os.geteuid()}"
    elif found.st_mode & stat.S_IWOTH:
        who = "may be written to by every user (chmod o-w)"
    else:
        return
    raise ArtefactError(f"{folder} {who}; set {key} to a folder of your own", code="B158")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
