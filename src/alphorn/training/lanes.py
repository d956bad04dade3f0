"""Programs beside each other on a CPU.

JAX runs what a thread asks for in turn. A loop, as that of a recurrent layer, keeps one core busy, and
what is computed for few rows not many more: programs that do not need each other share the cores.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator

from jaxlib import xla_client

from alphorn.distribution.current import distribution
from alphorn.kernels.device import on_cpu

# Calls that may be under way on the device: more would only pile up batches.
IN_FLIGHT = 4


def lanes() -> Iterator[contextlib.AbstractContextManager[None]]:
    """Yields, without end, in what to call one program after the other.

    Several devices keep to the order in which they are asked, for they exchange arrays.
    """
    stream = getattr(xla_client, "execution_stream_id", None)
    alone = not on_cpu() or distribution() is not None
    count = 1 if alone else min(IN_FLIGHT, os.cpu_count() or 1)
    if stream is None or count == 1:
        yield from itertools.repeat(contextlib.nullcontext())
        return
    for number in itertools.cycle(range(1, count + 1)):
        yield stream(number)
