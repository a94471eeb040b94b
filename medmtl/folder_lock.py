"""A folder for one process at a time: a run that is trained, or a folder that results are written to."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from medmtl.errors import BusyRunError, MachineError
from medmtl.files import NO_LINK, remove_leftovers

if sys.platform != "win32":
    import fcntl

LOCK_NAME = ".lock"
POLL_SECONDS = 0.05
TRIES = 1000  # to get a file that is still there; each but the last lost a race against somebody who removed it


class FolderLock:
    """An exclusive lock on a folder, for one ``with`` block: ``with FolderLock(folder): ...``.

    The kernel's ``flock`` decides and frees it when the process dies, however it dies. The host and process id in the
    lock file are only for the message.

    Args:
        folder: an existing folder; the lock is its file ``.lock``.
        leaves: whether the file stays there afterwards. Who removed it while another process waited for it would let
            two processes hold two locks; so whoever gets one looks whether it still is the file of that name.

    Raises:
        BusyRunError: on entry, when another process has it; the message names the host and the process id.
        MachineError: on entry, when the file system or platform has no such locks.
    """

    def __init__(self, folder: Path, *, leaves: bool = True) -> None:
        self.path = Path(folder) / LOCK_NAME
        self._leaves = leaves
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        if sys.platform == "win32":
            raise MachineError("a folder cannot be locked on Windows; train on Linux")
        for _ in range(TRIES):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o600)
            try:
                self._lock(descriptor)
                if self._leaves or self._is_there(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode())
                    self._descriptor = descriptor
                    _held.add(self)
                    return self
            finally:
                if self._descriptor == -1:
                    os.close(descriptor)
        raise MachineError(f"{self.path.parent} is on a file system that does not tell whether two files are one")

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _lock(self, descriptor: int) -> None:
        folder = self.path.parent
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 300, 0).decode("utf-8", "replace").split()
            who = f"process {holder[1]} on {holder[0]}" if len(holder) == 2 else "another process"
            raise BusyRunError(f"{folder} is in use by {who}; wait for it, stop it or choose another folder") from None
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise MachineError(
                    f"{folder} is on a file system without locks; use another disk", code="B044"
                ) from None
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._leaves:
            with suppress(OSError):
                os.unlink(self.path)
        self._release()

    def _release(self) -> None:
        _held.discard(self)
        if self._descriptor != -1:
            os.close(self._descriptor)
        self._descriptor = -1


def _release_in_child() -> None:
    """A forked process lets go: a worker that outlives a killed training must not hold its run."""
    for lock in list(_held):
        lock._release()


_held: set[FolderLock] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def output_lock(out: Path, folders: Iterable[Path], *, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder of results against other processes, and remove what a killed one left half-written.

    Nothing of the lock stays in the folder. Where the platform or the file system has no locks the work is done without
    one.

    Args:
        out: an existing folder.
        folders: those below it that are written to as well; some may be absent.
        patience: seconds to wait for whoever holds it.

    Raises:
        BusyRunError: on entry, when another process still has it.
    """
    with ExitStack() as held:
        try:
            _enter(held, FolderLock(out, leaves=False), time.monotonic() + patience)
        except MachineError:
            pass
        else:
            for folder in (out, *folders):
                if folder.is_dir() and not folder.is_symlink():
                    remove_leftovers(folder)
        yield


def _enter(held: ExitStack, lock: FolderLock, until: float) -> None:
    while True:
        try:
            held.enter_context(lock)
        except BusyRunError:
            if time.monotonic() >= until:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return
