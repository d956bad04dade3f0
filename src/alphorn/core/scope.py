"""Scopes: values that stand before the slots of Variables inside one pure call.

JAX keeps what it traced of a jit, scan or cond body by the body's function, with the values that
the body read from outside. A Variable that is read inside such a body could thus come out of the
cache with the value of an earlier scope, or as the tracer of a trace that is over. Such a read
raises `BakedReadError`; whoever opened the scope takes back what was written and runs again under a
token of its own, which no cache entry has.
"""

import contextlib
import contextvars
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend.core import get_opaque_trace_state

R = TypeVar("R")

# The trace around code that runs at once in the midst of one: see `outside_traces`.
_left: contextvars.ContextVar[Any] = contextvars.ContextVar("left", default=None)
_opaque_trace = functools.partial(get_opaque_trace_state, convention="nnx")
EAGER = _opaque_trace()


def current_trace() -> Any:
    """Returns what stands for the open trace; `EAGER` outside of all."""
    trace = _opaque_trace()
    left = _left.get() if trace == EAGER else None
    return trace if left is None else left


@contextlib.contextmanager
def outside_traces() -> Iterator[None]:
    """Runs operations at once though JAX traces around them; scopes and their rules stay.

    Not `jax.ensure_compile_time_eval`: that also takes jitted functions apart, operation by operation,
    and what needs no argument in them (a draw counts twice its size) becomes a constant of a program.
    """
    token = _left.set(current_trace())
    try:
        with eval_context():
            yield
    finally:
        _left.reset(token)


# Part of the key of JAX's caches.
_cache_token = jax.make_user_context(None)
_fresh_tokens = itertools.count()


class BakedReadError(BaseException):
    """A Variable is read where JAX's caches could keep its value.

    Not an Exception: a user's `except Exception` must let it through.

    Args:
        variable: Which.
        scope: The scope that holds it; None for its slot.
    """

    def __init__(self, variable: Any, scope: "Scope | None"):
        super().__init__(variable, scope)
        self.variable = variable
        self.scope = scope


class Scope:
    """The values that Variables have inside one call.

    Args:
        values: By Variable.
        absorbing: Whether it takes writes of Variables that it was not given.
        shapes_only: Whether only shapes count, so that slots may be read while JAX traces.
        guarded: Whether a cache token of its own stands around it.
    """

    __slots__ = (
        "absorbing",
        "guarded",
        "level",
        "losses",
        "outer",
        "shapes_only",
        "trace",
        "values",
    )

    def __init__(
        self,
        values: dict[Any, Any],
        absorbing: bool = False,
        shapes_only: bool = False,
        guarded: bool = False,
    ):
        self.values = values
        self.outer = _scope.get()
        self.absorbing = absorbing
        self.shapes_only = shapes_only
        self.guarded = guarded
        self.trace = current_trace()
        self.level = reading_level()
        self.losses: list[tuple[Any, Any]] = []

    def chain(self) -> "Iterator[Scope]":
        """Yields this scope and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def holding(self, variable: Any) -> "Scope | None":
        """Returns the innermost scope with a value for `variable`."""
        return next((s for s in self.chain() if variable in s.values), None)

    def taking(self, variable: Any) -> "Scope | None":
        """Returns the innermost scope that takes writes of `variable`."""
        return next((s for s in self.chain() if s.absorbing or variable in s.values), None)

    def read(self, variable: Any) -> Any:
        """Returns the value that this scope holds.

        Raises:
            BakedReadError: inside a body that JAX could keep.
        """
        self.check_read(variable)
        return self.values[variable]

    def check_read(self, variable: Any) -> None:
        """Raises BakedReadError inside a body that JAX could keep."""
        if not self.guarded and reading_level() != self.level and staging():
            raise BakedReadError(variable, self)


_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("scope", default=None)
# Pairs (trace of a body, trace around it) of transforms whose body is a new function each time.
_through: contextvars.ContextVar[tuple] = contextvars.ContextVar("through", default=())
# The Variables for whose slots the cache token stands; None where nobody answers BakedReadError.
_guarded_slots: contextvars.ContextVar[Any] = contextvars.ContextVar("guarded_slots", default=None)
_journal: contextvars.ContextVar[list | None] = contextvars.ContextVar("journal", default=None)


def current_scope() -> Scope | None:
    """Returns the open scope, or None."""
    return _scope.get()


@contextlib.contextmanager
def open_scope(
    values: Mapping[Any, Any] | None = None,
    absorbing: bool = False,
    shapes_only: bool = False,
    guarded: bool = False,
) -> Iterator[Scope]:
    """Opens a scope of a copy of `values`; see `Scope`."""
    scope = Scope(dict(values or {}), absorbing, shapes_only, guarded)
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def in_scope(
    run: Callable[[Scope], R],
    values: Mapping[Any, Any],
    absorbing: bool = False,
    shapes_only: bool = False,
) -> R:
    """Returns `run(scope)` in a scope of its own; runs again under a cache token if it must."""
    scope: Scope | None = None
    with attempt() as undo:
        try:
            with open_scope(values, absorbing, shapes_only) as scope:
                return run(scope)
        except BakedReadError as error:
            if scope is None or error.scope is not scope:
                raise
            born = {v: v.slot for v in scope.values if v not in values}
        undo()
        with (
            _cache_token(next(_fresh_tokens)),
            open_scope({**born, **values}, absorbing, shapes_only, guarded=True) as scope,
        ):
            return run(scope)


@contextlib.contextmanager
def eager_reads(variables: Mapping[Any, None]) -> Iterator[None]:
    """Lets slots be read inside a transform's body: JAX's caches hold for today's values alone.

    Args:
        variables: Those that such a body reads. Others raise BakedReadError for the caller to
            add them and run again.
    """
    if current_trace() != EAGER and staging():
        yield
        return
    token = _guarded_slots.set(variables)
    key = tuple((id(v), v.version) for v in variables)
    try:
        with _cache_token(key) if key else contextlib.nullcontext():
            yield
    finally:
        _guarded_slots.reset(token)


@contextlib.contextmanager
def attempt() -> Iterator[Callable[[], None]]:
    """Yields a function that takes back the writes to Variables since."""
    journal, token = _journal.get(), None
    if journal is None:
        token = _journal.set(journal := [])
    start = len(journal)

    def undo() -> None:
        while len(journal) > start:
            journal.pop()()

    try:
        yield undo
    finally:
        if token is not None:
            _journal.reset(token)


def record(undo: Callable[[], Any]) -> None:
    """Notes how to take a write back, if somebody may want to."""
    journal = _journal.get()
    if journal is not None:
        journal.append(undo)


def staging() -> bool:
    """Returns whether operations are being recorded (jit, scan, eval_shape), not run."""
    return current_trace() != EAGER and isinstance(
        jax.lax.add(np.float32(0), np.float32(0)), Tracer
    )


def reading_level() -> Any:
    """Returns the trace in which a read counts: bodies of `transparent` belong to what is around."""
    trace = current_trace()
    for body, around in reversed(_through.get()):
        if trace == body:
            trace = around
    return trace


def transparent(body: Callable[..., R]) -> Callable[..., R]:
    """Returns `body` for a transform: a new function, so that no cache keeps what it reads."""
    around = current_trace()

    def fresh(*args: Any, **kwargs: Any) -> R:
        token = _through.set((*_through.get(), (current_trace(), around)))
        try:
            return body(*args, **kwargs)
        finally:
            _through.reset(token)

    return fresh


def shapes_of(fn: Callable, *args: Any) -> Any:
    """Is `jax.eval_shape(fn, *args)` for an `fn` that uses Variables; what it writes is dropped."""

    def run(*values: Any) -> Any:
        return in_scope(lambda scope: fn(*values), {}, absorbing=True, shapes_only=True)

    return jax.eval_shape(transparent(run), *args)


def only_shapes() -> bool:
    """Whether what runs is asked for its shapes alone, at stand-in sizes perhaps."""
    scope = _scope.get()
    return scope is not None and any(s.shapes_only for s in scope.chain())


def slot_may_be_read(variable: Any) -> bool:
    """Returns whether the slot of `variable` may be read here, where no scope holds it.

    Raises:
        BakedReadError: where somebody can make it so.
    """
    scope = _scope.get()
    if scope is not None:
        shapes = next((s for s in scope.chain() if s.shapes_only), None)
        if shapes is not None:
            shapes.check_read(variable)
            return True
    if reading_level() == EAGER or not staging():
        return True
    guarded = _guarded_slots.get()
    if guarded is None:
        return False
    if variable not in guarded:
        raise BakedReadError(variable, None)
    return True
