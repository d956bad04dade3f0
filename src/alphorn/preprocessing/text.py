"""Text as numbers: words, ids, matrices."""

from collections.abc import Callable
from hashlib import md5
from importlib import import_module
from typing import Any

from alphorn.errors import ArgumentError, UnexpectedArgumentError
from alphorn.preprocessing.tokenizer import Tokenizer, tokenizer_from_json
from alphorn.preprocessing.words import PUNCTUATION, checked, cut, filters_of

__all__ = [
    "Tokenizer",
    "hashing_trick",
    "one_hot",
    "text_to_word_sequence",
    "tokenizer_from_json",
]

# What programs took from the module of Keras 2: nothing is imported before they ask.
_MODULES = {"string": "string", "sys": "sys", "json": "json", "np": "numpy"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name == "maketrans":
        return str.maketrans
    if name == "OrderedDict":
        return import_module("collections").OrderedDict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def text_to_word_sequence(
    input_text: str, filters: str = PUNCTUATION, lower: bool = True, split: Any = " "
) -> list[str]:
    """Returns the words of a text.

    Args:
        input_text: The text.
        filters: Characters that part words.
        lower: Whether letters become small.
        split: What parts words; or a function `text -> words`, which gets the text in small
            letters with blanks for the filtered characters.

    Raises:
        ArgumentError: what came is no string.

    >>> text_to_word_sequence("To be, or not?")
    ['to', 'be', 'or', 'not']
    """
    where = "text_to_word_sequence"
    if not isinstance(input_text, str):
        checked(input_text, f"{where}: text")
        raise ArgumentError(f"{where}: text", "a list", "a string", "it has words already")
    return cut([input_text], filters_of(filters, where), lower, split, where)[0]


def one_hot(
    input_text: str,
    n: int,
    filters: str = PUNCTUATION,
    lower: bool = True,
    split: Any = " ",
    analyzer: Callable | None = None,
) -> list[int]:
    """Returns a number from 1 to `n - 1` for each word, by Python's hash.

    Python's hash of strings changes from run to run: `hashing_trick(..., hash_function="md5")`
    does not. One-hot rows are `keras.utils.to_categorical`.

    >>> numbers = one_hot("the cat the", 50)
    >>> numbers[0] == numbers[2], all(0 < n < 50 for n in numbers)
    (True, True)
    """
    return hashing_trick(input_text, n, hash, filters, lower, split, analyzer)


def hashing_trick(
    text: str,
    n: int,
    hash_function: Any = None,
    filters: str = PUNCTUATION,
    lower: bool = True,
    split: Any = " ",
    analyzer: Callable | None = None,
) -> list[int]:
    """Returns a number from 1 to `n - 1` for each word; two words may share one.

    Args:
        text: The text.
        n: How many numbers, 0 counted.
        hash_function: "md5", None for Python's `hash`, or a function of a word.
        filters, lower, split: As in `text_to_word_sequence`.
        analyzer: A function `text -> words` in place of these three.

    >>> hashing_trick("the cat", 100, "md5")
    [51, 3]
    """
    if n < 2:
        raise ArgumentError("hashing_trick: n", n, "at least 2, as 0 is no word")
    known: dict[Any, Callable[[str], int]] = {None: hash, "md5": _md5}
    number_of: Any = hash_function if callable(hash_function) else known.get(hash_function)
    if number_of is None:
        raise UnexpectedArgumentError(
            "hashing_trick: hash_function", repr(hash_function), "None, 'md5' or a function"
        )
    words = analyzer(text) if analyzer else text_to_word_sequence(text, filters, lower, split)
    return [number_of(word) % (n - 1) + 1 for word in words]


def _md5(word: str) -> int:
    return int.from_bytes(md5(word.encode(), usedforsecurity=False).digest(), "big")
