"""Texts in attributes of an HDF5 file, read without the HDF5 library.

The library (2.0 too) believes whatever a damaged file says of texts of any length: it reads on for
ever, takes gigabytes, or dies. What is read here is what the HDF5 file format specification calls
object headers, attribute messages and global heaps.
"""

import math
from collections.abc import Iterator
from typing import Any

_CONTINUED, _ATTRIBUTE = 0x10, 0x0C
_FIXED, _ANY_LENGTH = 3, 9
# What stands in place of a text of any length: its length, and where in which heap it is.
_REFERENCE = 16


class DamagedError(ValueError):
    """Something in the file does not fit together."""


class Attributes:
    """Reads texts.

    Args:
        content: The whole file: bytes, or a memory map.
        begin: Where addresses count from.
    """

    def __init__(self, content: Any, begin: int = 0):
        self.content, self.begin = content, begin
        self.left = 16 * len(content) + (1 << 20)  # more bytes it takes only to go in circles
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def texts(self, header: int, name: str) -> str | list[str] | None:
        """Returns the text, or the texts, of an attribute; None where there are none.

        Args:
            header: The address of the header of a group.
            name: Of the attribute.

        Raises:
            DamagedError: the file contradicts itself.
        """
        for message in self._messages(header):
            found = self._attribute(message, name.encode("utf-8"))
            if found is not None:
                return found
        return None

    def _bytes(self, place: int, size: int) -> bytes:
        self.left -= size
        if self.left < 0 or place < 0 or place + size > len(self.content):
            raise DamagedError(f"{size} bytes at {place}, of {len(self.content)}")
        return bytes(self.content[place : place + size])

    def _messages(self, header: int) -> Iterator[bytes]:
        """Yields the attribute messages of an object."""
        place = self.begin + header
        newer = self._bytes(place, 6)
        if newer[:4] == b"OHDR":
            flags = newer[5]
            place += 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
            width = 1 << (flags & 3)
            chunks = [(place + width, _number(self._bytes(place, width)))]
            head = 6 if flags & 0x04 else 4
        else:
            chunks, head = [(place + 16, _number(self._bytes(place + 8, 4)))], 8
        while chunks:
            place, size = chunks.pop()
            chunk = self._bytes(place, size)
            here = 0
            while here + head <= size:
                kind, length, flags = _message_head(chunk, here, head)
                body = chunk[here + head : here + head + length]
                here += head + length
                if kind == _CONTINUED and length >= 16:
                    place, more = self.begin + _number(body[:8]), _number(body[8:16])
                    chunks.append((place, more) if head == 8 else (place + 4, more - 8))
                elif kind == _ATTRIBUTE and not flags & 2 and len(body) == length > 8:
                    yield body

    def _attribute(self, message: bytes, name: bytes) -> str | list[str] | None:
        version, flags = message[0], message[1]
        sizes = [_number(message[i : i + 2]) for i in (2, 4, 6)]
        here, parts = 9 if version == 3 else 8, []
        for size in sizes:
            parts.append(message[here : here + size])
            here += (size + 7) // 8 * 8 if version == 1 else size
        if parts[0].rstrip(b"\0") != name or (version > 1 and flags & 3):
            return None
        kind, shape = parts[1], _shape(parts[2])
        if len(kind) < 8 or shape is None:
            return None
        width, count = _number(kind[4:8]), math.prod(shape)
        any_length = kind[0] & 15 == _ANY_LENGTH and kind[1] & 15 == 1 and width == _REFERENCE
        if not any_length and (kind[0] & 15 != _FIXED or not width):
            return None
        if count * width > len(message) - here:
            raise DamagedError(f"{count} texts in {len(message) - here} bytes")
        cells = [message[here + i * width : here + (i + 1) * width] for i in range(count)]
        texts = [
            (self._referred(c) if any_length else c).rstrip(b"\0").decode("utf-8", "replace")
            for c in cells
        ]
        return texts if shape else texts[0]

    def _referred(self, reference: bytes) -> bytes:
        length, heap, index = (_number(reference[a:b]) for a, b in ((0, 4), (4, 12), (12, 16)))
        if not length:
            return b""
        if heap not in self.heaps:
            self.heaps[heap] = self._heap(self.begin + heap)
        found = self.heaps[heap].get(index, (0, 0))
        if length > found[1]:
            raise DamagedError(f"a text of {length} bytes, where {found[1]} are")
        return self._bytes(found[0], length)

    def _heap(self, place: int) -> dict[int, tuple[int, int]]:
        """Returns where each object of a heap begins, and its size."""
        if self._bytes(place, 5) != b"GCOL\x01":
            raise DamagedError(f"no heap at {place}")
        end = place + _number(self._bytes(place + 8, 8))
        here = place + 16
        found: dict[int, tuple[int, int]] = {}
        while here + 16 <= end:
            head = self._bytes(here, 16)
            index, size = _number(head[:2]), _number(head[8:])
            if not index:  # the rest is free
                break
            found[index] = (here + 16, size)
            here += 16 + (size + 7) // 8 * 8
        return found


def _message_head(chunk: bytes, here: int, head: int) -> tuple[int, int, int]:
    """Returns what kind of message begins there, its size and its flags."""
    if head == 8:
        return _number(chunk[here : here + 2]), _number(chunk[here + 2 : here + 4]), chunk[here + 4]
    return chunk[here], _number(chunk[here + 1 : here + 3]), chunk[here + 3]


def _shape(space: bytes) -> tuple[int, ...] | None:
    """Returns the shape that a dataspace says; None where it has none."""
    if len(space) < 4 or space[0] not in (1, 2):
        return None
    rank, begin = space[1], 8 if space[0] == 1 else 4
    if (space[0] == 2 and space[3] == 2) or len(space) < begin + 8 * rank:
        return None
    return tuple(_number(space[begin + 8 * i : begin + 8 * i + 8]) for i in range(rank))


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")
