"""Texts cut into words, many texts at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from alphorn.errors import ArgumentError

PUNCTUATION = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'

# What str.split() parts at, the blank itself aside.
OTHER_BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
CHARACTERS_AT_ONCE = 1 << 17
# Texts of fewer are not worth a table of words.
FEW = 1 << 12
_END = "\0"


def filters_of(filters: Any, where: str) -> str:
    """Returns the characters to filter as one string, whatever iterable they came in."""
    characters = filters if isinstance(filters, str) else tuple(filters or ())
    if not all(isinstance(c, str) and len(c) == 1 for c in characters):
        raise ArgumentError(f"{where}: filters", repr(filters), "single characters")
    return "".join(characters)


def cut(
    texts: Sequence[str], filters: str, lower: bool, split: str | Callable[[str], Any], where: str
) -> list[list[str]]:
    """Returns the words of each text.

    Args:
        texts: As many as are cut at once.
        filters: Characters that stand for `split`.
        lower: Whether letters become small.
        split: What parts words, or a function `text -> words`.
        where: For errors.

    The texts are joined, filtered as one, and parted again: a call a step, not a call a text.
    """
    if not callable(split) and not (isinstance(split, str) and split):
        raise ArgumentError(f"{where}: split", repr(split), "a string, or a function of a text")
    between = " " if callable(split) else split
    whole = _END.join(texts)
    if len(texts) > 1 and (
        whole.count(_END) != len(texts) - 1 or _END in filters or _END in between
    ):
        return [cut([text], filters, lower, split, where)[0] for text in texts]
    whole = _filtered(whole.lower() if lower else whole, filters, between)
    parts = whole.split(_END) if len(texts) > 1 else [whole] * len(texts)
    if callable(split):
        return [[word for word in split(part) if word.strip()] for part in parts]
    if split == " " and not any(blank in whole for blank in OTHER_BLANKS):
        return [part.split() for part in parts]
    return [list(filter(None, part.split(split))) for part in parts]


def _filtered(text: str, filters: str, between: str) -> str:
    if text.isascii() or len(between) != 1:
        return text.translate(_table(filters, between))
    # Beyond ASCII, translate looks each character up: to replace the few that occur is faster.
    for character in filters:
        if character in text:
            text = text.replace(character, between)
    return text


@lru_cache(maxsize=64)
def _table(filters: str, between: str) -> dict[int, str]:
    return str.maketrans(dict.fromkeys(filters, between))


def as_bytes(texts: Sequence[str], filters: str, lower: bool, split: Any) -> bytes | None:
    """Returns texts with `split` for the filtered characters, in UTF-8, 0 behind each text.

    Args:
        texts, filters, lower, split: As in `cut`.

    Or None, where words cannot be parted at one byte.
    """
    if not (isinstance(split, str) and len(split) == 1 and split.isascii()) or split == _END:
        return None
    whole = _END.join([*texts, ""])
    if whole.count(_END) != len(texts) or _END in filters:
        return None
    plain = whole.isascii()
    if not plain:
        whole = whole.lower() if lower else whole
        for character in filters:
            if not character.isascii():
                whole = whole.replace(character, split)
    table = _byte_table(filters, lower and plain, split)
    return whole.encode("utf-8", "surrogatepass").translate(table)


@lru_cache(maxsize=64)
def _byte_table(filters: str, lower: bool, split: str) -> bytes:
    letters = map(chr, range(128))
    plain = "".join(letter.lower() if lower else letter for letter in letters)
    return plain.translate(_table(filters, split)).encode() + bytes(range(128, 256))


def runs(texts: Any, where: str) -> Iterator[list[Any]]:
    """Yields texts up to some 131,000 characters at a time: strings, or lists of words, never both.

    Args:
        texts: Any iterable, also one that never ends.
        where: For errors.
    """
    run: list[Any] = []
    size, kind, most = 0, str, FEW
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            text = checked(text, f"{where}: text {number}")
        if not isinstance(text, kind) or size > most:
            most = min(2 * most, CHARACTERS_AT_ONCE)  # what is new comes first: in short runs
            if run:
                yield run
            run, size = [], 0
            kind = str if isinstance(text, str) else list
        run.append(text)
        size += 16 + (len(text) if kind is str else 8 * len(text))
    if run:
        yield run


def checked(text: Any, where: str) -> Any:
    """Returns a text, or its list of words, if it is one."""
    if isinstance(text, str | list):
        return text
    if isinstance(text, tuple):
        return list(text)
    if hasattr(text, "tolist") and getattr(text, "ndim", 0) == 1:
        return text.tolist()
    fix = ""
    if isinstance(text, bytes):
        fix = "text.decode()"
    elif text is None or isinstance(text, float):
        fix = "a missing value: leave it out, or put '' in its place (pandas: texts.fillna(''))"
    raise ArgumentError(
        where, f"{text!r}, of type {type(text).__name__}", "a string, or a list of words", fix
    )


def small(words: list[Any], where: str) -> list[Any]:
    """Returns a list of words in small letters."""
    try:
        return list(map(str.lower, words))
    except TypeError:
        pass
    try:
        return [word.lower() for word in words]  # bytes, say
    except AttributeError:
        strange = next(word for word in words if not hasattr(word, "lower"))
        raise ArgumentError(
            where,
            received=f"{strange!r} among the words, of type {type(strange).__name__}",
            expected="strings",
            fix="lower=False takes words of any type; str(word) makes strings",
        ) from None
