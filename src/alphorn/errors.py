"""The errors that Alphorn raises, and the one form that their messages have."""


class AlphornError(Exception):
    """Says where something went wrong, what came, what was expected and what to do.

    Args:
        where: The layer or argument, e.g. `Dense 'dense_1'`, and what is wrong with it.
        received: What came.
        expected: What would have been right.
        fix: The way out: the line to write instead.

    >>> print(ShapeError("Dense 'd'", received="rank 1", expected="rank 2", fix="add an axis"))
    Dense 'd'
      received: rank 1
      expected: rank 2
      to mend it: add an axis
    """

    def __init__(self, where: str, received: object = "", expected: str = "", fix: str = ""):
        parts = (("received", received), ("expected", expected), ("to mend it", fix))
        super().__init__("\n  ".join([where, *(f"{k}: {v}" for k, v in parts if v != "")]))


class MaskError(AlphornError):
    """A mask would get lost, or has no meaning here.

    Not a TypeError: JAX re-wraps those while it binds a primitive, and the way out would be hidden.
    """


class ShapeError(AlphornError, ValueError):
    """An array has the wrong rank or size."""


class ArgumentError(AlphornError, ValueError):
    """An argument has a value that means nothing here."""


class FileError(ArgumentError):
    """A file is damaged, of another kind, or asks for what no file may: nothing came of it."""


class DataError(AlphornError, ValueError):
    """Data for training or prediction does not fit together or does not fit the model."""


class UnexpectedArgumentError(AlphornError, TypeError):
    """A call has too many, too few or unknown arguments."""


class AssignmentError(AlphornError, TypeError):
    """An item is assigned of an array that cannot be changed in place."""


class StateError(AlphornError, RuntimeError):
    """State is read or written where it does not exist or would go stale."""


def not_installed(where: str, package: str, extra: str) -> ArgumentError:
    """Returns the error for an argument that asks for a package that an extra brings."""
    fix = f"pip install 'alphorn[{extra}]'"
    return ArgumentError(where, received=f"no package `{package}`", fix=fix)


def missing(use: str, package: str, extra: str) -> ImportError:
    """Returns the error for a package that an extra brings.

    >>> str(missing("a PNG", "resvg", "viz"))
    "a PNG needs resvg: pip install 'alphorn[viz]'"
    """
    return ImportError(f"{use} needs {package}: pip install 'alphorn[{extra}]'")
