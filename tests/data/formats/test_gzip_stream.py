from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pytest

from medmtl.data.formats import gzip_stream
from medmtl.data.formats.gzip_stream import GzipStream

CONTENT = np.random.default_rng(0).integers(0, 3, 3000, np.uint8).tobytes() + bytes(2000)


def everything(stream: GzipStream, size: int) -> bytes:
    buffer, found = bytearray(size), b""
    while count := stream.readinto(memoryview(buffer)):
        found += buffer[:count]
    return found


@pytest.mark.parametrize("packed", [1, 7, 100, 1 << 17])
@pytest.mark.parametrize("size", [1, 13, 1 << 20])
@pytest.mark.parametrize("parts", [1, 3])
def test_every_way_of_cutting_reads_alike(packed: int, size: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "PACKED", packed)
    step = len(CONTENT) // parts + 1
    file = b"".join(gzip.compress(CONTENT[start : start + step]) for start in range(0, len(CONTENT), step))

    stream = GzipStream(io.BytesIO(file))

    assert everything(stream, size) == CONTENT
    assert stream.finish(100) == 0


@pytest.mark.parametrize("packed", [1, 7, 1 << 17])
def test_what_was_not_asked_for_is_counted_up_to_a_limit(packed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "PACKED", packed)
    for after in (b"", b"x", b"\x1f", gzip.compress(b"more"), bytes(1000)):
        stream = GzipStream(io.BytesIO(gzip.compress(CONTENT) + after))
        buffer = memoryview(bytearray(4000))
        filled = 0
        while filled < len(buffer):
            filled += stream.readinto(buffer[filled:])
        assert buffer.tobytes() == CONTENT[:4000]
        assert stream.finish(10_000) == 1000 + len(after)
    assert GzipStream(io.BytesIO(gzip.compress(CONTENT) + bytes(10**6))).finish(100) > 100


def test_damage_is_met_at_the_latest_at_the_end() -> None:
    whole = gzip.compress(CONTENT)
    with pytest.raises(zlib.error, match="incorrect data check"):
        GzipStream(io.BytesIO(whole[:-8] + bytes(4) + whole[-4:])).finish(10_000)
    with pytest.raises(zlib.error, match="incorrect length check"):
        GzipStream(io.BytesIO(whole[:-4] + bytes(4))).finish(10_000)
    with pytest.raises(EOFError):
        GzipStream(io.BytesIO(whole[:-1])).finish(10_000)
