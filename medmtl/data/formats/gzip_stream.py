"""A gzip stream read member by member, so that it is known where the one that matters ends."""

from __future__ import annotations

import io
import zlib

PACKED = 1 << 17  # compressed bytes handed to zlib at once; what it does not use of them is copied

_GZIP = b"\x1f\x8b"
_WITH_GZIP_HEADER = 31  # zlib then checks length and checksum itself
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class GzipStream:
    """The uncompressed bytes of a gzip file; members that follow each other are one stream, as gzip has it.

    Args:
        raw: the file's own bytes, from the first on.
    """

    def __init__(self, raw: io.BufferedIOBase) -> None:
        self._raw = raw
        self._member = zlib.decompressobj(_WITH_GZIP_HEADER)
        self._packed = b""

    def readinto(self, view: memoryview) -> int:
        """Fill the start of a buffer that is not empty; 0 only at the end of the last member.

        Raises:
            EOFError: if the stream is cut off.
            zlib.error: if it is damaged, or its checksum or length is wrong.
        """
        while True:
            if self._member.eof and not self._next_member():
                return 0
            if count := self._decoded_into(view):
                return count

    def finish(self, limit: int) -> int:
        """Verify the member that was read last, and count what nobody asked for: its other bytes, and those after it.

        The latter are counted as they lie in the file. Counting stops above ``limit``.

        Raises:
            EOFError: as :meth:`readinto`.
            zlib.error: as :meth:`readinto`.
        """
        extra = 0
        view = memoryview(bytearray(PACKED))
        while not self._member.eof and extra <= limit:
            extra += self._decoded_into(view)
        rest = self._member.unused_data
        size = len(rest)
        while extra + size <= limit and (more := self._raw.read(PACKED)):
            rest, size = rest + more if size < len(_BGZF_END) else rest, size + len(more)
        # the empty member that ends a file of bgzip says nothing
        return extra + (0 if rest == _BGZF_END and size == len(rest) else size)

    def _decoded_into(self, view: memoryview) -> int:
        packed = self._packed or self._raw.read(PACKED)
        if not packed:
            raise EOFError
        data = self._member.decompress(packed, len(view))
        self._packed = self._member.unconsumed_tail
        view[: len(data)] = data
        return len(data)

    def _next_member(self) -> bool:
        rest = self._member.unused_data
        if len(rest) < len(_GZIP):
            rest += self._raw.read(len(_GZIP))
        if not rest.startswith(_GZIP):
            return False
        self._member, self._packed = zlib.decompressobj(_WITH_GZIP_HEADER), rest
        return True
