"""Functions of arrays that know Masked sequences and Symbols, under the names of `keras.ops`.

Each is a row of a table: a name, a function of plain arrays, what becomes of a mask.
"""

from alphorn.ops import (
    core,
    elementwise,
    linalg,
    nn,
    operators,
    reduction,
    selection,
    shape as _shape_room,
    steps,
)
from alphorn.ops.table import PUBLIC, Operation

__all__ = sorted(PUBLIC)
globals().update(PUBLIC)
