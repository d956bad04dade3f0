"""What the signature of a layer's `call` says, looked at once a function."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from alphorn.errors import UnexpectedArgumentError


class CallSpec:
    """What the signature of a `call` says: argument names, mask arguments, defaults."""

    def __init__(self, call: Callable):
        self.signature = inspect.signature(call)
        parameters = list(self.signature.parameters.values())[1:]
        self.spreads = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.first = next((p.name for p in parameters if p.kind is not p.VAR_KEYWORD), None)
        self.has_training = "training" in self.names
        named = set(self.names)
        self.mask_arguments = {n: f"{n}_mask" for n in self.names if f"{n}_mask" in named}
        if "mask" in named and self.first:
            self.mask_arguments[self.first] = "mask"

    def bind(self, where: str, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Returns the arguments by name; those of `*args` stand under its name as a tuple."""
        try:
            bound = self.signature.bind(None, *args, **kwargs).arguments
        except TypeError as error:
            raise UnexpectedArgumentError(
                f"{where}: {error}", expected=f"call{self.signature}"
            ) from None
        bound.pop(next(iter(bound)))
        for name, p in self.signature.parameters.items():
            if p.kind is p.VAR_KEYWORD:
                bound.update(bound.pop(name, {}))
        return dict(bound)

    def unbind(self, arguments: dict[str, Any]) -> tuple[tuple, dict]:
        """Returns `(args, kwargs)` for the call."""
        rest = dict(arguments)
        args: list[Any] = []
        for name, p in list(self.signature.parameters.items())[1:]:
            if p.kind is p.VAR_POSITIONAL:
                args.extend(rest.pop(name, ()))
            elif name in rest and (
                p.kind is p.POSITIONAL_ONLY or (self.spreads and p.kind is p.POSITIONAL_OR_KEYWORD)
            ):
                args.append(rest.pop(name))
        return tuple(args), rest


@functools.lru_cache(maxsize=4096)
def call_spec(call: Callable) -> CallSpec:
    """Returns what the signature of `call` says, looked at once a function."""
    return CallSpec(call)
