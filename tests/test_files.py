"""Files are whole or absent, and readers refuse what is not ours."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import unicodedata
from pathlib import Path

import pytest

from medmtl import files
from medmtl.errors import ArtefactError, InputError


def test_write_atomic_replaces_and_is_private(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    old = os.umask(0)
    try:
        files.write_atomic(target, b"one")
        files.write_atomic(target, b"two")
        files.write_atomic(tmp_path / "b.bin", b"", mode=0o644)
    finally:
        os.umask(old)
    assert target.read_bytes() == b"two"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b.bin").stat().st_mode) == 0o644
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "b.bin"]


def test_write_atomic_syncs_the_file_then_renames_then_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    files.write_atomic(tmp_path / "a", b"x")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    target = tmp_path / "a"
    files.write_atomic(target, b"old")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    files.write_atomic(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


@pytest.mark.covers("F68")
def test_write_atomic_does_not_follow_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(outside)
    files.write_atomic(tmp_path / "link", b"new")
    assert outside.read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


def test_write_atomic_does_not_take_the_place_of_a_pipe_or_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="it is no plain file"):
        files.write_atomic(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".tmp-0123456789abcdef", ".tmp-notes", "tmp", ".lock"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", ".tmp-notes", "tmp"]


def test_append_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    files.append_line(log, "a")
    files.append_line(log, "b")
    assert log.read_bytes() == b"a\nb\n"
    assert stat.S_IMODE(log.stat().st_mode) & 0o077 == 0
    with pytest.raises(ValueError, match="line break"):
        files.append_line(log, "x\ny")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1]))
    with pytest.raises(OSError, match="in part"):
        files.append_line(log, "lost")
    assert log.read_bytes() == b"a\nb\n"


@pytest.mark.covers("F68")
def test_append_line_closes_a_torn_line_and_refuses_a_link(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"a": 1}\n{"b"')
    files.append_line(log, "c")
    assert log.read_bytes() == b'{"a": 1}\n{"b"\nc\n'
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(OSError):
        files.append_line(tmp_path / "link", "d")
    assert log.read_bytes() == b'{"a": 1}\n{"b"\nc\n'


def test_json_is_deterministic_and_reads_back(tmp_path: Path) -> None:
    value = {"b": [1, 0.1, None, True], "a": {"é": "\u2028"}}
    files.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_bytes()
    assert text == b'{\n "b": [\n  1,\n  0.1,\n  null,\n  true\n ],\n "a": {\n  "\\u00e9": "\\u2028"\n }\n}\n'
    assert files.read_json(tmp_path / "a.json", limit_bytes=len(text)) == value
    with pytest.raises(ArtefactError, match="more than the"):
        files.read_json(tmp_path / "a.json", limit_bytes=len(text) - 1)


def test_write_json_refuses_what_is_not_finite_and_keeps_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", 1)
    for bad in (float("nan"), float("inf"), {"x": [float("-inf")]}):
        with pytest.raises(ValueError):
            files.write_json(tmp_path / "a.json", bad)
    assert (tmp_path / "a.json").read_bytes() == b"1\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        (b'[{"a": {"b": 1, "b": 2}}]', "'b' stands twice"),
        (b"NaN", "finite"),
        (b"[-Infinity]", "finite"),
        (b"1e999", "finite"),
        (b"9" * 5000, "digits"),
        (b"[" * 65 + b"]" * 65, "levels"),
        (b"[" * 100_000 + b"]" * 100_000, "levels"),
        (b'{"a": 1', "JSON"),
        (b"{} {}", "JSON"),
        (b"", "JSON"),
        (b'"\xff"', "utf-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
    ],
)
def test_parse_json_refuses(text: bytes, reason: str) -> None:
    with pytest.raises(ArtefactError, match=reason) as caught:
        files.parse_json(text, "plan.json")
    assert "plan.json" in str(caught.value)


def test_parse_json_accepts_the_deepest_allowed() -> None:
    text = b"[" * 64 + b"]" * 64
    assert files.parse_json(text, "x") == json.loads(text)


def test_read_bytes_takes_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert files.read_bytes(tmp_path / "file", limit_bytes=100) == b"x" * 100
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("link", "fifo", "folder", "absent", "file/below"):
        with pytest.raises(ArtefactError, match=name):
            files.read_bytes(tmp_path / name, limit_bytes=100)


def test_a_failing_disk_is_not_called_a_bad_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "disk failed")

    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="disk failed"):
        files.read_bytes(tmp_path / "a", limit_bytes=1)


def test_hashes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_file(tmp_path / "a") == files.sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    assert files.sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_make_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "fsync_folder", synced.append)
    old = os.umask(0)
    try:
        files.make_private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    for name in ("a", "a/b"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    assert synced == [tmp_path, tmp_path / "a"], "each new name is on disk"
    (tmp_path / "open").mkdir(mode=0o755)
    before = (tmp_path / "open").stat().st_mode
    files.make_private_folder(tmp_path / "open")
    assert (tmp_path / "open").stat().st_mode == before
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        files.make_private_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("case_id", "name"),
    [
        ("Case_01.a-b", "Case_01.a-b"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".", "%2E"),
        ("../../etc", "%2E.%2F..%2Fetc"),
        ("-rf", "%2Drf"),
        ("a%2Fb", "a%252Fb"),
        ("é ~", "%C3%A9%20%7E"),
        ("\udcff\0\n", "%ED%B3%BF%00%0A"),
        ("x" * 100, "x" * 100),
    ],
)
def test_safe_name(case_id: str, name: str) -> None:
    assert files.safe_name(case_id) == name


def test_safe_name_of_a_long_id_is_short_and_its_own() -> None:
    long = "x" * 101
    name = files.safe_name(long)
    digest = hashlib.sha256(long.encode()).hexdigest()[:16]
    assert name == "x" * 82 + "%-" + digest
    assert len(name) == 100
    ids = [long, "x" * 82 + "%-" + digest, "x" * 82 + "-" + digest, name, "x" * 102, "é" * 40, "é" * 41]
    ids += [unicodedata.normalize("NFD", "é" * 40)]
    assert len({files.safe_name(case_id) for case_id in ids}) == len(set(ids)) == 7
    with pytest.raises(InputError, match="empty"):
        files.safe_name("")
