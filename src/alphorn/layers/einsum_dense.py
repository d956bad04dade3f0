"""EinsumDense: any product with a kernel, written in Einstein's notation."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked
from alphorn.core.rules import nest
from alphorn.errors import ArgumentError, MaskError, ShapeError
from alphorn.initializers import AsInitializer, VarianceScaling
from alphorn.ops.linalg import einsum
from alphorn.regularizers import AsRegularizer

__all__ = ["EinsumDense"]


@dataclass(frozen=True)
class Equation:
    """The letters of an equation for data of one rank, "..." written out.

    Args:
        inputs: Of the data, the batch first.
        kernel: Of the kernel.
        outputs: Of the output.
        elided: Those that "..." stands for.
    """

    inputs: str
    kernel: str
    outputs: str
    elided: str

    @classmethod
    def parse(cls, where: str, text: str, rank: int) -> "Equation":
        """Reads an equation.

        Args:
            where: The layer, for errors.
            text: E.g. `"btf,fe->bte"` or `"...f,fe->...e"`.
            rank: Number of axes of the data.
        """
        left, arrow, outputs = text.replace(" ", "").partition("->")
        inputs, comma, kernel = left.partition(",")
        terms = (inputs, kernel, outputs)
        dotted = ["..." in t for t in terms]
        plain = [t.replace("...", "", 1) for t in terms]
        if not (arrow and comma and all(p.isalpha() for p in plain)) or dotted[1]:
            raise ArgumentError(
                f"{where}: equation",
                received=repr(text),
                expected="one input and a kernel: 'btf,fe->bte', '...f,fe->...e', 'bf...,fe->be...'",
            )
        count = rank - len(plain[0])
        if dotted[0] != dotted[2] or count < 0 or (count and not dotted[0]):
            raise ShapeError(
                f"{where}: equation {text!r}",
                received=f"data of {rank} axes",
                expected=f"{len(plain[0])} axes{' or more' if dotted[0] else ''}",
            )
        elided = "".join([c for c in string.ascii_letters if c not in text][:count])
        return cls(inputs.replace("...", elided), kernel, outputs.replace("...", elided), elided)


def with_fans(initializer: Any, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    """Returns an initializer that scales by fans, told which axes are inputs and which outputs."""
    if not isinstance(initializer, VarianceScaling) or initializer.input_axes is not None:
        return initializer
    fans = {"input_axes": list(inputs), "output_axes": list(outputs)}
    return type(initializer).from_config(initializer.get_config() | fans)


class EinsumDense(Layer):
    """`activation(einsum(equation, inputs, kernel) + bias)`.

    Args:
        equation: E.g. `"btf,fe->bte"`; "..." may stand for the first or for the last axes.
        output_shape: Sizes of the output without the batch and without what "..." stands for; None
            where the input says it.
        activation: A name or function; None for none.
        bias_axes: Letters of the output that the bias has; None for no bias.
        kernel_initializer, bias_initializer: First values.
        kernel_regularizer, bias_regularizer: Penalties.
        kernel_constraint, bias_constraint: Applied after each update.

    Masked steps count as zero where the equation sums over time, and the mask ends there; elsewhere
    it stays with its axes.

    >>> import jax.numpy as jnp
    >>> EinsumDense("btf,fhd->bthd", (None, 2, 3), bias_axes="hd")(jnp.ones((1, 5, 4))).shape
    (1, 5, 2, 3)
    """

    equation: str
    output_shape: Any
    activation: AsActivation = None
    bias_axes: str | None = None
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None

    masking = nest

    def after_init(self) -> None:
        """Takes one size as a shape."""
        given = self.output_shape
        self.output_shape = (given,) if isinstance(given, int) else tuple(given)

    @property
    def _where(self) -> str:
        return f"EinsumDense '{self.name}'"

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        letters = Equation.parse(self._where, self.equation, len(input_shape))
        sizes = self._sizes(letters, tuple(input_shape))
        self.input_spec = InputSpec(ndim=len(input_shape))
        inner = [c not in letters.outputs for c in letters.kernel]
        initializer = with_fans(
            self.kernel_initializer,
            [a for a, contracted in enumerate(inner) if contracted],
            [a for a, contracted in enumerate(inner) if not contracted],
        )
        shape = [sizes[c] for c in letters.kernel]
        self.kernel = self.add_field_weight("kernel", shape, initializer=initializer)
        self.bias = None
        if self.bias_axes is not None:
            self.bias = self.add_field_weight("bias", self._bias_shape(letters, sizes))

    def _sizes(self, letters: Equation, shape: tuple) -> dict[str, Any]:
        """Returns the size of each letter, from the input's shape and `output_shape`."""
        for term, sources in (
            (letters.outputs, letters.inputs + letters.kernel),
            (letters.kernel, letters.inputs + letters.outputs),
        ):
            if alone := [c for c in term if c not in sources]:
                raise ArgumentError(
                    f"{self._where}: equation {self.equation!r}",
                    received=f"'{alone[0]}' in one term only",
                    expected="each axis of kernel and output in another term",
                )
        sizes = dict(zip(letters.inputs, shape, strict=True))
        batch = letters.inputs[0]
        named = [c for c in letters.outputs if c not in letters.elided and c != batch]
        if len(named) != len(self.output_shape):
            raise ArgumentError(
                f"{self._where}: output_shape",
                received=self.output_shape,
                expected=f"a size for each of {', '.join(named) or 'no axes'}",
                fix="leave out the batch and what '...' stands for; None where the input says it",
            )
        for letter, size in zip(named, self.output_shape, strict=True):
            known = sizes.get(letter)
            if None not in (size, known) and size != known:
                raise ShapeError(
                    f"{self._where}: axis '{letter}' of {self.equation!r}",
                    received=f"{known} in the input, {size} in output_shape",
                    expected="one size, or None in output_shape",
                )
            sizes[letter] = known if size is None else size
        for letter in letters.kernel:
            if sizes.get(letter) is None:
                raise ShapeError(
                    f"{self._where}: the kernel's axis '{letter}' of {self.equation!r}",
                    received="a size that is not known",
                    expected="a known size for each axis of the kernel",
                    fix="a kernel over time needs Input((steps, ...)); over features, output_shape=",
                )
        return sizes

    def _bias_shape(self, letters: Equation, sizes: dict[str, Any]) -> list[Any]:
        axes = self.bias_axes or ""
        if not axes or any(c not in letters.outputs for c in axes):
            raise ArgumentError(
                f"{self._where}: bias_axes",
                received=repr(self.bias_axes),
                expected=f"letters of the output, {letters.outputs!r}",
            )
        first = min(letters.outputs.index(c) for c in axes)
        return [sizes[c] if c in axes else 1 for c in letters.outputs[first:]]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the products, with the mask of the axes that are left."""
        if isinstance(inputs, Masked):
            self._check_mask(inputs)
        y = einsum(self.equation, inputs, self.kernel.value)
        if self.bias is not None:
            y = y + self.bias.value
        if isinstance(y, Masked) and y.mask.ndim < y.ndim:
            return Masked.trusted(self.activation(y.data), y.mask)
        return self.activation(y)

    def _check_mask(self, x: Masked) -> None:
        letters = Equation.parse(self._where, self.equation, x.ndim)
        batch = letters.inputs[0]
        if letters.outputs[:1] != batch or letters.inputs.count(batch) > 1:
            raise MaskError(
                f"{self._where}: {self.equation!r} does not keep the rows first",
                received=f"a masked sequence of shape {x.shape}",
                expected=f"an output that begins with '{batch}'",
                fix="unmask(x) ends the mask on purpose; or let the output begin with the batch",
            )
