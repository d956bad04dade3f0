"""Watching: what goes in and out at the doors of layers, for summaries, pictures and checks."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from alphorn.core.masked import Masked, is_masked, unmask, with_mask
from alphorn.core.rules import same_data
from alphorn.core.scope import current_trace
from alphorn.errors import MaskError


class Visit:
    """One call of a layer or of an op in a graph.

    Args:
        operation: The layer or op.
        given: What it was called on, before any conversion.
        arguments: The same by name, with masks attached.
        parent: The visit inside which it happened.
    """

    __slots__ = ("children", "error", "given", "inputs", "operation", "outputs", "parent")

    def __init__(self, operation: Any, given: Any, arguments: Any, parent: "Visit | None"):
        self.operation = operation
        self.given = leaves_of(given)
        self.inputs = leaves_of(arguments)
        self.outputs: list[Any] = []
        self.parent = parent
        self.children: list[Visit] = []
        self.error: MaskError | None = None


def leaves_of(tree: Any) -> list[Any]:
    """Returns the arrays and Masked in a structure, in order."""
    leaves = jax.tree.leaves(tree, is_leaf=is_masked)
    return [x for x in leaves if hasattr(x, "shape") and hasattr(x, "dtype")]


class Watch:
    """The visits since `watching()`, in order of arrival.

    Only those in the trace in which it began: values inside the body of a scan or of a jit of the
    user's own cannot leave it.

    Args:
        change: `(operation, output) -> output` for each array or Masked that comes out.
    """

    def __init__(self, change: Callable[[Any, Any], Any] | None = None) -> None:
        self._change = change
        self.visits: list[Visit] = []
        # (visit, whether it has ended), as it happened.
        self.events: list[tuple[Visit, bool]] = []
        self._trace = current_trace()
        self._open: Visit | None = None

    @property
    def top(self) -> Visit | None:
        """The first visit."""
        return self.visits[0] if self.visits else None

    def visit(self, operation: Any, given: Any, arguments: Any, run: Callable[[], Any]) -> Any:
        """Returns what `run` does, and notes it."""
        if current_trace() != self._trace:
            return run()
        visit = Visit(operation, given, arguments, self._open)
        if self._open is not None:
            self._open.children.append(visit)
        self.visits.append(visit)
        self.events.append((visit, False))
        self._open = visit
        try:
            outputs = self._changed(operation, _apart(run(), visit.given))
        except MaskError as error:
            visit.error = error
            raise
        finally:
            self._open = visit.parent
        visit.outputs = leaves_of(outputs)
        self.events.append((visit, True))
        return outputs

    def _changed(self, operation: Any, outputs: Any) -> Any:
        change = self._change
        if change is None:
            return outputs

        def one(x: Any) -> Any:
            return change(operation, x) if hasattr(x, "dtype") else x

        return jax.tree.map(one, outputs, is_leaf=is_masked)


def _apart(outputs: Any, inputs: list[Any]) -> Any:
    """Returns outputs that are objects of their own, so that each tells where it comes from."""
    known = {id(unmask(x)) for x in inputs}

    def own(x: Any) -> Any:
        data = unmask(x)
        if id(data) not in known or not isinstance(data, jax.Array):
            return x
        return with_mask(
            same_data(data, jnp.array(data, copy=True)), x.mask if is_masked(x) else None
        )

    return jax.tree.map(own, outputs, is_leaf=is_masked)


_watch: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(change: Callable[[Any, Any], Any] | None = None) -> Iterator[Watch]:
    """Notes what layers are called on and return while the context lasts.

    Args:
        change: `(operation, output) -> output`, what goes on instead of an output.
    """
    token = _watch.set(watch := Watch(change))
    try:
        yield watch
    finally:
        _watch.reset(token)


def is_watched() -> bool:
    """Returns whether somebody watches."""
    return _watch.get() is not None


def watched(operation: Any, given: Any, arguments: Any, run: Callable[[], Any]) -> Any:
    """Returns what `run` does; who watches is told.

    Args:
        operation: The layer or op that runs.
        given: What it was called on.
        arguments: The same by name, with masks attached.
        run: Runs it.
    """
    watch = _watch.get()
    return run() if watch is None else watch.visit(operation, given, arguments, run)


def mask_shape(x: Any) -> tuple[int, ...] | None:
    """Returns the shape of the mask of `x`, or None."""
    return tuple(x.mask.shape) if isinstance(x, Masked) else None
