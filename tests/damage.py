"""What draws damaged files: bytes, values of JSON, members of archives."""

import copy
import io
import json
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st


class Content(bytes):
    """Bytes that are not shown."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


_NUMBERS = (
    0,
    1,
    2,
    8,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
    2**40,
    2**63,
    2**64 - 1,
)
_JUNK = (None, True, -1, 0, 1, 2.5, 10**12, "", "x", "Dense", "net", [], [1], [None, 10**12], {},
         {"class_name": "Dense", "config": {}}, {"class_name": "__tuple__", "items": [1]})  # fmt: skip


def _spots(config: Any) -> list[tuple[Any, Any]]:
    """Returns where a config holds something: containers and keys."""
    found, stack = [], [config]
    while stack:
        here = stack.pop()
        for key in here if isinstance(here, dict) else range(len(here)):
            found.append((here, key))
            if isinstance(here[key], dict | list):
                stack.append(here[key])
    return found


@st.composite
def damaged_json(draw: Any, text: bytes) -> bytes:
    """A text in which some values are others."""
    config = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        spots = _spots(config)
        if not spots:
            break
        here, key = spots[draw(st.integers(0, len(spots) - 1))]
        what = draw(st.sampled_from(("junk", "junk", "drop", "copy")))
        if what == "drop":
            del here[key]
        elif what == "junk":
            here[key] = copy.deepcopy(draw(st.sampled_from(_JUNK)))
        else:
            other, place = spots[draw(st.integers(0, len(spots) - 1))]
            here[key] = copy.deepcopy(other[place])
    return Content(json.dumps(config).encode())


@st.composite
def damaged_bytes(draw: Any, content: bytes) -> bytes:
    """A file in which some bytes are others: mostly near such as mean something."""
    made = bytearray(content)
    filled = np.flatnonzero(np.frombuffer(content, np.uint8))
    for _ in range(draw(st.integers(1, 6))):
        place = int(filled[draw(st.integers(0, len(filled) - 1))]) + draw(st.integers(-3, 3))
        place = min(max(place, 0), max(len(made) - 1, 0))
        what = draw(st.sampled_from(("flip", "byte", "number", "number", "move", "cut")))
        if what == "flip":
            made[place : place + 1] = bytes([made[place] ^ 1 << draw(st.integers(0, 7))])
        elif what == "byte":
            made[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif what == "number":
            size, number = draw(st.sampled_from((2, 4, 8))), draw(st.sampled_from(_NUMBERS))
            made[place : place + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
        elif what == "move":
            begin, size = draw(st.integers(0, len(content) - 1)), draw(st.integers(1, 64))
            made[place : place + size] = content[begin : begin + size]
        elif draw(st.booleans()):
            del made[place:]
        if not made:
            break
    return Content(made)


@st.composite
def damaged_member(draw: Any, content: bytes, name: str) -> bytes:
    """An archive with a damaged member, its checksum right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        held = {n: archive.read(n) for n in archive.namelist()}
    held[name] = draw((damaged_json if name.endswith(".json") else damaged_bytes)(held[name]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, inner in held.items():
            archive.writestr(member, inner)
    return Content(out.getvalue())
