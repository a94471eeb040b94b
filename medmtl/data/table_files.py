"""Finds the files that a table names, below its own folder and the declared roots; nothing is opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from medmtl.data.cell import folded
from medmtl.data.finding import Fault
from medmtl.disk import why
from medmtl.errors import WorkError

_REFUSED = {
    errno.ENOENT: ("B032", "no such file", "a file"),
    errno.ENOTDIR: ("B032", "a file where a folder should be", "a file"),
    errno.ELOOP: ("B035", "a loop of links", "a file"),
    errno.EACCES: ("B037", "no permission", "a readable file"),
    errno.EPERM: ("B037", "no permission", "a readable file"),
    errno.ENAMETOOLONG: ("B041", "too long", "at most 255 bytes in a name and 4096 in a path"),
}
_CORRECT = "correct the path, which is relative to the table's folder"


class FileFault(Fault):
    """A file of the table was refused."""

    def __init__(self, code: str, found: str, expected: str, fix: str) -> None:
        super().__init__(code, code, found=found, expected=expected, fix=fix)


class TableFiles:
    """The files of one table.

    Folders are resolved and listed once: a cohort has many files in few folders.

    Args:
        folder: the table's; relative paths start there and nowhere else.
        roots: further folders whose files may be read.
    """

    def __init__(self, folder: Path, roots: Iterable[Path]) -> None:
        self._folder = os.path.abspath(folder)
        allowed = (folder, *roots)
        self._written = tuple(os.path.join(os.path.abspath(root), "") for root in allowed)
        self._real = tuple(os.path.join(os.path.realpath(root), "") for root in allowed)
        self._folders: dict[str, tuple[str, str]] = {}
        self._listings: dict[str, dict[str, tuple[str, str]]] = {}

    def find(self, text: str) -> tuple[Path, str]:
        """The file as a path to open, and its place with all links followed.

        Args:
            text: the path as the table has it.

        Raises:
            FileFault: if it is missing, outside, unreadable or no regular file.
            WorkError: if the file system fails.
        """
        try:
            return self._find(text)
        except UnicodeEncodeError:
            expected = "a name that this system's encoding has"
            raise FileFault("B039", "a name that cannot be encoded", expected, "use a UTF-8 locale") from None

    def _find(self, text: str) -> tuple[Path, str]:
        head, name = os.path.split(text)
        if head not in self._folders:
            folder = os.path.normpath(os.path.join(self._folder, head))
            self._folders[head] = (os.path.join(folder, ""), os.path.join(os.path.realpath(folder), ""))
        written, real = (folder + name for folder in self._folders[head])
        self._check_inside(written, real)
        try:
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(real)
                self._check_inside(written, real)
                mode = self._behind_link(real)
        except OSError as error:
            raise self._fault(error, written) from None
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise FileFault("B036", kind, "a regular file", "correct the path")
        return Path(written), real

    def _check_inside(self, written: str, real: str) -> None:
        if _inside(real, self._real):
            return
        expected, fix = "a file under the table's folder", "move the file, or list its folder in cohort.roots"
        if _inside(written, self._written):
            raise FileFault("B035", "a link that leads outside", expected, f"it leads to {_plain(real)}; {fix}")
        raise FileFault("B034", "a path that leads outside", expected, fix)

    @staticmethod
    def _behind_link(real: str) -> int:
        try:
            return os.stat(real).st_mode
        except FileNotFoundError:
            raise FileFault("B035", "a link to nothing", "a file", f"restore {_plain(real)}, where it leads") from None

    def _fault(self, error: OSError, written: str) -> Exception:
        code, found, expected = _REFUSED.get(error.errno or 0, ("", "", ""))
        if not code:
            return WorkError(f"looking for a file of the table failed: {why(error)}")
        twin = self._twin(written) if error.errno == errno.ENOENT else None
        if twin is not None:
            return twin
        fix = _CORRECT
        if "\\" in written:
            fix = "write / between folders"
        elif "~" in Path(written).parts:
            fix = "write the whole path: ~ stands for no folder here"
        return FileFault(code, f"{found} (errno {error.errno})", expected, fix)

    def _twin(self, written: str) -> FileFault | None:
        """The fault of a file that exists under another spelling, or None."""
        folder, name = os.path.split(written)
        while not os.path.isdir(folder):
            folder, name = os.path.split(folder)
        if not _inside(os.path.realpath(folder), self._real):
            return None
        if folder not in self._listings:
            self._listings[folder] = {folded(as_text): (as_text, there) for as_text, there in _listing(folder)}
        as_text, there = self._listings[folder].get(folded(name), ("", ""))
        if not there:
            return None
        if as_text != there:
            return FileFault(
                "B039", there, "a name in UTF-8, as the table is", "rename the file, whose name is Latin-1"
            )
        return FileFault("B040", there, "this name", "the file exists under another spelling; write it exactly so")


def _listing(folder: str) -> list[tuple[str, str]]:
    """Names in a folder as text and as they are; bytes that are not UTF-8 are read as Latin-1."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [(name if _is_utf8(name) else os.fsencode(name).decode("latin-1"), name) for name in names]


def _plain(path: str) -> str:
    """A path without what no stream can encode."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_utf8(name: str) -> bool:
    return not any("\udc80" <= sign <= "\udcff" for sign in name)


def _inside(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path is one of the folders or below it; folders end in a separator."""
    return (path + os.sep).startswith(folders)
