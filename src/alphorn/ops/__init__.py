"""Functions of arrays that know Masked sequences and Symbols, under the names of `keras.ops`.

Each is a row of a table: a name, a function of plain arrays, what becomes of a mask.
"""

from alphorn.ops import (  # noqa: F401
    core,
    elementwise,
    linalg,
    nn,
    reduction,
    selection,
    steps,
)
from alphorn.ops import shape as _shape  # noqa: F401
from alphorn.ops.operators import install
from alphorn.ops.table import PUBLIC

__all__ = sorted(PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]
globals().update(PUBLIC)
install()
