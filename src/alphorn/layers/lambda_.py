"""Lambda: a function as a layer."""

from collections.abc import Callable
from typing import Any

from alphorn.core.layer import Layer
from alphorn.core.masked import is_masked, unmask, with_mask
from alphorn.errors import ArgumentError

__all__ = ["Lambda"]


class Lambda(Layer):
    """Applies a function.

    The function gets a `Masked` where the input has a mask: written on `ops` it needs no mask code
    (`Lambda(lambda x: ops.mean(x, axis=1))` is the mean of the valid steps).

    Args:
        function: Of the inputs; it may also take `mask` and `training`.
        output_shape: Found by itself; accepted as in Keras.
        mask: The mask of the output, or `(inputs, mask) -> mask`; by default what comes out has.
        arguments: Further keyword arguments of the function.
    """

    function: Callable
    output_shape: Any = None
    mask: Any = None
    arguments: Any = None

    def after_init(self) -> None:
        """Checks the function."""
        if not callable(self.function):
            raise ArgumentError("Lambda: function", repr(self.function), "a function")
        self.arguments = dict(self.arguments or {})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns what the function gives."""
        names = getattr(getattr(self.function, "__code__", None), "co_varnames", ())
        count = getattr(getattr(self.function, "__code__", None), "co_argcount", 0)
        options = dict(self.arguments)
        if "training" in names[1:count]:
            options.setdefault("training", training)
        if "mask" in names[1:count] and is_masked(inputs):
            options.setdefault("mask", inputs.mask)
            out = self.function(inputs.data, **options)
        else:
            out = self.function(inputs, **options)
        if self.mask is None:
            return out
        given = inputs.mask if is_masked(inputs) else None
        mask = self.mask(unmask(inputs), given) if callable(self.mask) else self.mask
        return with_mask(unmask(out), mask)


# Its function is the user's: stored jits inside must not keep values of another scope.
Lambda.user_defined = True
