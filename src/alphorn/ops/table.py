"""The table of ops: each row is a name, a function of plain arrays, and what becomes of a mask.

`add` makes a row into a public function, which takes arrays, NumPy arrays, Python numbers, lists,
Variables, Masked sequences and Symbols.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from alphorn.core import symbol
from alphorn.core.assignment import Assignable, assignable, is_assigning, plain, without_assigning
from alphorn.core.masked import Masked
from alphorn.core.symbol import Symbol
from alphorn.core.variable import unwrap
from alphorn.core.watching import is_watched, watched
from alphorn.errors import MaskError
from alphorn.naming import auto_name, lookup, register


@dataclass(frozen=True)
class Rule:
    """What becomes of a mask in an op.

    Args:
        apply: `(op, arguments) -> result`; `arguments` by name, a Masked among them.
        says: A sentence for the op's documentation.
        anywhere: Whether any argument may be (or hold) a Masked.
    """

    apply: Callable[["Op", dict[str, Any]], Any]
    says: str
    anywhere: bool = False


@dataclass(frozen=True)
class Op:
    """A row of the table.

    Args:
        name: The public name.
        plain: The function of plain arrays; its signature is the op's.
        rule: What becomes of a mask.
        arrays: The arguments that are arrays (or lists of them); they are converted.
        summary: One line of documentation.
        symbolic: Whether Symbols become a node of a graph; else `plain` sees them.
    """

    name: str
    plain: Callable[..., Any]
    rule: Rule
    arrays: tuple[str, ...] = ("x",)
    summary: str = ""
    symbolic: bool = True

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the public function."""
        return inspect.signature(self.plain)

    def masked(self, arguments: dict[str, Any]) -> Any:
        """Calls the op where an argument is Masked.

        Args:
            arguments: By name, with the defaults.
        """
        allowed = arguments if self.rule.anywhere else self.arrays
        for name, value in arguments.items():
            if name not in allowed and isinstance(value, Masked):
                raise MaskError(
                    f"ops.{self.name}: argument `{name}` cannot be a masked sequence",
                    received=repr(value),
                    expected="plain data",
                    fix=f"ops.unmask({name})",
                )
        return self.rule.apply(self, arguments)

    def call_plain(self, arguments: dict[str, Any]) -> Any:
        """Calls `plain` with arguments by name, its `*args` and `**kwargs` spread."""
        args, kwargs = [], {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                args += arguments[name]
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs |= arguments[name]
            elif parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[name] = arguments[name]
            else:
                args.append(arguments[name])
        return self.plain(*args, **kwargs)

    def with_arrays(self, arguments: dict[str, Any], *values: Any) -> Any:
        """Calls `plain` with `values` in place of the array arguments."""
        return self.call_plain(arguments | dict(zip(self.arrays, values, strict=True)))


TABLE: dict[str, Op] = {}
PUBLIC: dict[str, Callable] = {}


class Operation:
    """A call of an op in a graph of Symbols, by name so that files can hold it.

    >>> Operation("log")(1.0)
    Array(0., dtype=float32, weak_type=True)
    """

    def __init__(self, op: str, name: str | None = None):
        self.op = op
        self.name = name or auto_name(op)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the op; with Symbols this call becomes a part of their graph."""
        if Symbol in set(map(type, _leaves((args, kwargs)))) and TABLE[self.op].symbolic:
            return symbol.apply(self, args, kwargs)
        return PUBLIC[self.op](*args, **kwargs)

    def get_config(self) -> dict[str, str]:
        """Returns the arguments that make this operation again."""
        return {"op": self.op, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, str]) -> "Operation":
        """Makes an operation from `get_config()`."""
        lookup("functions", config["op"])
        return cls(**config)

    def __repr__(self) -> str:
        return f"<Operation {self.op} '{self.name}'>"


register("operations", Operation)


def as_array(value: Any) -> Any:
    """Returns an array argument as JAX array or Masked; lists of arrays stay lists of them."""
    if value is None or isinstance(value, Masked | Symbol):
        return value
    value = unwrap(value)
    if isinstance(value, list | tuple) and any(hasattr(v, "dtype") for v in value):
        return [as_array(v) for v in value]
    return jnp.asarray(value)


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        elif isinstance(value, dict):
            yield from _leaves(value.values())
        else:
            yield value


def _call(op: Op, signature: inspect.Signature, args: tuple, kwargs: dict) -> Any:
    found = set(map(type, _leaves((args, kwargs))))
    if Assignable in found or is_assigning():
        out = without_assigning(lambda: _call(op, signature, plain(args), plain(kwargs)), (), {})
        return assignable(out)
    if op.symbolic and Symbol in found:
        return symbol.apply(Operation(op.name), args, kwargs)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"ops.{op.name}{signature}: {error}") from None
    bound.apply_defaults()
    arguments = {
        k: _array_argument(v, signature.parameters[k]) if k in op.arrays else unwrap(v)
        for k, v in bound.arguments.items()
    }
    if Masked not in found:
        return op.call_plain(arguments)
    if not is_watched():
        return op.masked(arguments)
    return watched(Operation(op.name, op.name), args, arguments, lambda: op.masked(arguments))


def _array_argument(value: Any, parameter: inspect.Parameter) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL or parameter.name in ("xs", "condlist"):
        return [as_array(v) for v in value]
    return as_array(value)


def add(op: Op, *aliases: str) -> Callable:
    """Puts a row into the table, makes its function, and returns that.

    Args:
        op: The row.
        aliases: Further public names of the same function.
    """
    signature = op.signature

    def public(*args: Any, **kwargs: Any) -> Any:
        return _call(op, signature, args, kwargs)

    public.__name__ = public.__qualname__ = op.name
    public.__module__ = "alphorn.ops"
    vars(public)["__signature__"] = signature
    summary = op.summary or f"Returns `{op.name}({', '.join(signature.parameters)})`."
    public.__doc__ = f"{summary}\n\nMask: {op.rule.says}"
    for name in (op.name, *aliases):
        TABLE[name] = op
        PUBLIC[name] = register("functions", public, name)
    return public


def row(
    rule: Rule,
    *aliases: str,
    arrays: tuple[str, ...] = ("x",),
    name: str = "",
    symbolic: bool = True,
) -> Callable[[Callable], Callable]:
    """Returns a decorator that makes a function of plain arrays a row, under its own name."""

    def decorate(plain: Callable) -> Callable:
        summary = inspect.cleandoc(plain.__doc__ or "")
        named = name or plain.__name__.strip("_")
        return add(Op(named, plain, rule, arrays, summary, symbolic), *aliases)

    return decorate
