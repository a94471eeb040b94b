"""A program: feed every hostile file to every door under an audit hook, and print what the interpreter was asked to do.

    python -m tests.reliability.audited FOLDER CANARY [--control]

With ``--control`` it does what must never happen, to show that the hook would see it.
"""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from medmtl.errors import MedmtlError
from tests.reliability import hostile
from tests.reliability.entry_points import CONFIG, Feed, furnish, read_config

SUSPECT = (
    "exec", "import", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system",
    "pickle.find_class", "shutil.unpack_archive", "marshal.load", "marshal.loads", "code.__new__", "ctypes.dlopen",
    "subprocess.Popen", "urllib.Request", "webbrowser.open",
)  # fmt: skip
CHANGING = {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.symlink", "os.link", "os.truncate", "os.chmod"}
WRITE_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC


class Watch:
    """An audit hook that can be switched on; it cannot be removed."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = str(allowed)
        self.on = False
        self.where = ""
        self.events: list[str] = []
        self.accepted: list[str] = []
        self.codes: dict[str, set[int]] = {}

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        suspect = event in SUSPECT and not (event == "exec" and _annotation())
        if suspect or event.startswith("socket.") or self._changes_elsewhere(event, arguments):
            self.events.append(f"{self.where}: {event} {str(arguments)[:120]}")

    def _changes_elsewhere(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & WRITE_FLAGS)
        else:
            writes = event in CHANGING
        return writes and isinstance(arguments[0], str) and not _place(arguments).startswith(self.allowed)


def _annotation() -> bool:
    """Whether what runs is the text of an annotation of our own classes, which pydantic reads when it is first used."""
    caller = sys._getframe(2).f_code.co_filename
    return caller.endswith(("/typing.py", "/dataclasses.py")) or "/pydantic/_internal/" in caller


def _place(arguments: tuple[Any, ...]) -> str:
    """The path of an event; one below an open folder is completed by the folder's."""
    folder = arguments[-1] if len(arguments) > 1 and isinstance(arguments[-1], int) else -1
    if folder < 0 or Path(arguments[0]).is_absolute():
        return str(arguments[0])
    return str(Path(f"/proc/self/fd/{folder}").readlink() / arguments[0])


def main() -> None:
    folder, canary = Path(sys.argv[1]), Path(sys.argv[2])
    logging.disable(logging.CRITICAL)
    furnish(folder)
    watch = Watch(folder)
    sys.addaudithook(watch)
    attacks = list(hostile.attacks(canary))
    # what the library imports when it first reads a file of each kind is no doing of the file
    for _, door, data in attacks[::7]:
        run(watch, folder, door, data)
    read_config(folder, CONFIG)
    watch.accepted.clear()
    watch.codes.clear()
    watch.on = True
    if "--control" in sys.argv:
        control(canary)
    else:
        outcomes = [run(watch, folder, door, data, name) for name, door, data in attacks]
    watch.on = False
    faults = [] if "--control" in sys.argv else [outcome for outcome in outcomes if outcome is not None]
    said = {"attacks": len(attacks), "events": watch.events, "faults": faults, "accepted": watch.accepted}
    codes = {door: sorted(found) for door, found in watch.codes.items()}
    sys.stdout.write(json.dumps({**said, "codes": codes}) + "\n")


def run(watch: Watch, folder: Path, door: Feed, data: bytes, name: str = "") -> str | None:
    """What a door answered, where that is no error of medmtl's own."""
    watch.where = f"{name} at {door.__name__}"
    start = time.monotonic()
    try:
        door(folder, data)
        watch.accepted.append(watch.where)
    except MedmtlError as error:
        watch.codes.setdefault(door.__name__, set()).add(error.exit_code)
    except Exception as error:
        return f"{watch.where}: {type(error).__name__}: {str(error)[:120]}"
    return f"{watch.where}: took too long" if time.monotonic() - start > 10 else None


def control(canary: Path) -> None:
    """Unpickle a trap, start a program, write a file elsewhere."""
    pickle.loads(hostile.artefacts(canary)["pickle"])
    subprocess.run(["true"], check=True)
    canary.with_name("written").write_text("x")
    exec("1")
    __import__("wave")  # nothing else does


if __name__ == "__main__":
    main()
