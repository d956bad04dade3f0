"""The order in which a recurrence meets the rows and steps of a padded batch.

Letters: `B` batch, `T` time, `R` rows of a block, `C` steps of a chunk.

Rows are sorted by length and run in blocks of a few, each block for as many steps as its longest
row has: a batch costs what its valid steps cost and a little more (1.26 times, where half-empty
batches of 32 cost 2.45 times), by one compiled loop whatever the lengths. Rows that are padded in
front, or are read backwards, differ only in where their steps are taken from and put.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import extent
from alphorn.kernels.device import on_cpu
from alphorn.kernels.stepping import reverse_by_extent

# Most steps of a chunk: enough rows for a fast product, few that lie behind a block's end.
_CHUNK = 32


class Shape(NamedTuple):
    """The static sizes of a batch in blocks.

    Args:
        blocks: Their number.
        rows: `R`; the last block may have rows without steps.
        chunk: `C`.
        steps: `T`, rounded up to whole chunks.
    """

    blocks: int
    rows: int
    chunk: int
    steps: int


class Order(NamedTuple):
    """Where each block finds its steps, and where their outputs go.

    `source`, `placed`, `taken` and `read` are indices into two axes made one. What is None without a
    mask is marked so.

    Args:
        rows: `(blocks * R,)`, the rows from the longest to the shortest, some twice at the end, or
            None.
        places: `(B,)`, each row's place among them, or None.
        source: `(blocks * T', R)` into `(B, T)`: the inputs as they are read.
        placed: As `source`: where their outputs stand.
        valid: `(blocks * T', R)` boolean, or None.
        within: As `valid`, of the extent: missing steps are within it.
        last: `(blocks,)`, the steps of each block's longest row, or the steps of all.
        taken: `(B, T)` into `(blocks * (T' + 1), R)`: the state after the step whose output stands
            there; a block's first states are before its steps.
        read: `(B, T)` into `(blocks * T', R)`: the step at which an input is read.
        begun: `(B, T)` boolean, where there is an output, or None.
        behind: `(B, T)` boolean, steps behind the extent, or None.
    """

    rows: Array | None
    places: Array | None
    source: Array
    placed: Array
    valid: Array | None
    within: Array | None
    last: Any
    taken: Array
    read: Array
    begun: Array | None
    behind: Array | None

    def sorted(self, value: Array) -> Array:
        """Returns `(B, ...)` in blocks, one after the other."""
        return value if self.rows is None else value[self.rows]

    def restored(self, value: Array) -> Array:
        """Returns blocks one after the other as `(B, ...)`."""
        return value if self.places is None else value[self.places]


def block_shape(batch: int, steps: int, kernel_bytes: int, masked: bool) -> Shape:
    """Returns the sizes for a batch.

    The recurrent kernel is read at each step of a block. While it stays in the cache, 8 rows a
    step cost as little each as 64; of larger kernels more rows must share a reading. Not on a CPU,
    a loop of an unknown number of steps waits for the host: there all rows run all steps.

    >>> block_shape(32, 200, 4 * 128 * 512, masked=True)
    Shape(blocks=4, rows=8, chunk=29, steps=203)
    >>> block_shape(32, 200, 4 * 128 * 512, masked=False)
    Shape(blocks=1, rows=32, chunk=29, steps=203)
    """
    rows = batch
    if masked and on_cpu():
        rows = min(batch, max(8, min(kernel_bytes >> 16, batch // 2)))
    chunks = -(-steps // _CHUNK) if on_cpu() else 1
    chunk = -(-steps // chunks)
    return Shape(-(-batch // rows), rows, chunk, chunks * chunk)


def _whole(shape: Shape, batch: int, steps: int, go_backwards: bool) -> Order:
    row = lax.iota(jnp.int32, batch)
    step = lax.iota(jnp.int32, shape.steps)[:, None]
    forth = jnp.minimum(step, steps - 1)
    time = lax.iota(jnp.int32, steps)[None]
    placed = source = row * steps + forth
    taken, read = ((time + more) * batch + row[:, None] for more in (1, 0))
    if go_backwards:
        source = row * steps + steps - 1 - forth
        read = read[:, ::-1]
    return Order(None, None, source, placed, None, None, steps, taken, read, None, None)


def order_of(
    shape: Shape,
    mask: Array | None,
    batch: int,
    steps: int,
    go_backwards: bool,
    zero_output_for_mask: bool,
) -> Order:
    """Returns the order of a batch's rows and steps.

    Args:
        shape: As `block_shape` gives it.
        mask: `(B, T)` boolean, or None.
        batch: `B`.
        steps: `T`.
        go_backwards: Whether each row is read from the end of its extent.
        zero_output_for_mask: Whether masked steps put out zeros.
    """
    if mask is None:
        return _whole(shape, batch, steps, go_backwards)
    start, stop = extent(mask)
    length = stop - start
    rows = jnp.argsort(-length)
    places = jnp.argsort(rows)
    # Blocks are filled up by the last row once more, without steps.
    room = shape.blocks * shape.rows
    rows = jnp.concatenate((rows, jnp.broadcast_to(rows[-1:], (room - batch,))))
    count = jnp.where(lax.iota(jnp.int32, room) < batch, length[rows], 0)

    def blocked(value: Array) -> Array:
        return value.reshape(shape.blocks, 1, shape.rows)

    def flat(value: Array) -> Array:
        return value.reshape(-1, shape.rows)

    step = lax.iota(jnp.int32, shape.steps)[None, :, None]
    within = step < blocked(count)
    forth = jnp.clip(blocked(start[rows]) + step, 0, steps - 1)
    placed = source = flat(blocked(rows) * steps + forth)
    if go_backwards:
        back = jnp.clip(blocked(stop[rows]) - 1 - step, 0, steps - 1)
        source = flat(blocked(rows) * steps + back)
    within = flat(within)

    time = lax.iota(jnp.int32, steps)[None]
    longest = jnp.maximum(length - 1, 0)[:, None]
    block, lane = (value[:, None] for value in (places // shape.rows, places % shape.rows))
    step = jnp.clip(time - start[:, None], 0, longest)
    taken = (block * (shape.steps + 1) + step + 1) * shape.rows + lane
    turned = mask
    if go_backwards:
        step = jnp.clip(stop[:, None] - 1 - time, 0, longest)
        turned = reverse_by_extent(mask, mask)
    read = (block * shape.steps + step) * shape.rows + lane
    return Order(
        rows,
        places,
        source,
        placed,
        within & mask.reshape(-1)[source],
        within,
        jnp.max(count.reshape(shape.blocks, -1), 1) if on_cpu() else steps,
        taken,
        read,
        turned if zero_output_for_mask else jnp.cumsum(turned, axis=1) > 0,
        time >= stop[:, None],
    )
