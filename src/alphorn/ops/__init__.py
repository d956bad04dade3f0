"""Functions of arrays that know Masked sequences and Symbols, under the names of `keras.ops`.

Each is a row of a table: a name, a function of plain arrays, what becomes of a mask.
"""

from alphorn.ops import (
    core,
    elementwise,
    linalg,
    network,
    nn,
    parts,
    quantiles,
    reduction,
    selection,
    shape,
    signal,
    steps,
    windows,
)
from alphorn.ops.operators import install
from alphorn.ops.table import PUBLIC

# Their import fills the table.
_ROOMS = (
    core,
    elementwise,
    linalg,
    network,
    nn,
    parts,
    quantiles,
    reduction,
    selection,
    shape,
    signal,
    steps,
    windows,
)
install()
globals().update(PUBLIC, __all__=sorted(PUBLIC))  # for tools: `__init__.pyi`
