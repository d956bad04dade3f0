"""Functions from Symbols to Symbols, and gradients of Symbols."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.backend.state import LEARNING_PHASE
from alphorn.core.context import training_now, training_phase
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked, fill_masked, is_masked, mask_of, unmask, with_mask
from alphorn.core.rules import choose
from alphorn.core.symbol import Symbol, is_symbol, topological_order
from alphorn.core.transforms import jit, value_and_grad
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import ArgumentError, DataError
from alphorn.layers.core import Input
from alphorn.models.capture import only_looking
from alphorn.models.graph import Graph
from alphorn.models.nested import begin_of, connected
from alphorn.naming import auto_name
from alphorn.training.compiled import fill_outputs
from alphorn.training.data import Table

__all__ = ["Function", "function", "gradients", "is_keras_tensor", "placeholder"]


def is_keras_tensor(x: Any) -> bool:
    """Returns whether `x` is a Symbol."""
    return is_symbol(x)


def placeholder(
    shape: Sequence[int | None] | None = None,
    ndim: int | None = None,
    dtype: Any = None,
    sparse: bool = False,
    name: str | None = None,
) -> Symbol:
    """Returns a Symbol, for `function`.

    Args:
        shape: With the batch axis; None for sizes that vary.
        ndim: The number of axes, where no shape is given.
        dtype: By default `floatx()`.
        sparse: Must be False.
        name: Counted by default.
    """
    if shape is None:
        shape = (None,) * (ndim or 0)
    return Input(batch_shape=tuple(shape), dtype=dtype, sparse=sparse or None, name=name)


class _Run:
    """The compiled part of a `Function`: values of Symbols, then assignments."""

    __name__ = "K.function"

    def __init__(self, graph: Graph | None, wanted: list, updates: list, training: bool):
        self.graph, self.wanted, self.updates, self.training = graph, wanted, updates, training

    @property
    def variables(self) -> list[Variable]:
        """What the graph, the outputs and the updates read or write."""
        found = [x for x in [*self.wanted, *sum(self.updates, ())] if isinstance(x, Variable)]
        if self.graph is not None:
            found += [v for layer in self.graph.layers for v in layer.variables]
            found += self.graph.variables
        return list(dict.fromkeys(found))

    def __call__(self, inputs: Any) -> list[Any]:
        """Returns the values of what is wanted."""
        graph = self.graph
        with training_phase(self.training):
            values = (
                {}
                if graph is None
                else only_looking(lambda: graph.values(inputs, "K.function"), self.variables)
            )

        def at(x: Any) -> Any:
            return values[id(x)] if is_symbol(x) else unwrap(x() if callable(x) else x)

        found = [at(x) for x in self.wanted]
        for variable, new in [(v, at(new)) for v, new in self.updates]:
            variable.assign(jnp.asarray(unmask(new), variable.dtype).reshape(variable.shape))
        return found


class Function:
    """What `function` returns: call it on data for the inputs.

    Args:
        inputs: A list (or dict) of Symbols, `learning_phase()` among them or not.
        outputs: A structure of Symbols; Variables and arrays in it come as they are.
        updates: Pairs `(variable, new value)`, assigned at each call after the outputs; the value
            is a Symbol, an array or a function of nothing.
        name: For errors.
    """

    def __init__(self, inputs: Any, outputs: Any, updates: Any = None, name: str | None = None):
        self.name = name or "K.function"
        self.inputs, self.outputs = inputs, outputs
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        self._phases = [i for i, x in enumerate(given) if x is LEARNING_PHASE or _is_number(x)]
        begin = inputs
        if isinstance(inputs, list | tuple):
            begin = [x for i, x in enumerate(given) if i not in self._phases]
        pairs: list[Any] = list(updates or ())
        if happened := [p for p in pairs if not isinstance(p, tuple)]:
            raise ArgumentError(
                f"{self.name}: updates",
                received=f"{happened[0]!r}, the result of an assignment that has been made",
                expected="pairs of a Variable and a Symbol",
                fix="(variable, lambda: variable + 1) is computed at each call",
            )
        leaves, self._structure = jax.tree.flatten(outputs, is_leaf=_is_value)
        wanted = connected(begin, [*leaves, *(new for _, new in pairs)])
        symbols = [x for x in wanted if is_symbol(x)]
        graph = Graph(begin, symbols) if symbols else None
        wanted, new = wanted[: len(leaves)], wanted[len(leaves) :]
        assigned = [(v, n) for (v, _), n in zip(pairs, new, strict=True)]
        self._repeats = [_repeats(x) for x in wanted]
        self._runs = [jit(_Run(graph, wanted, assigned, phase)) for phase in (False, True)]

    def __call__(self, inputs: Any) -> Any:
        """Returns the outputs for data, as NumPy arrays in the structure of the outputs.

        Args:
            inputs: Arrays, Masked sequences or lists of unequal sequences, in the structure of the
                inputs; 0 or 1 where the learning phase stands.
        """
        training = bool(training_now())
        if isinstance(self.inputs, list | tuple):
            values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            if len(values) != len(self.inputs):
                raise DataError(self.name, f"{len(values)} inputs", f"{len(self.inputs)} of them")
            for place in self._phases:
                training = bool(np.asarray(values[place]))
            inputs = [_as_data(v) for i, v in enumerate(values) if i not in self._phases]
        elif isinstance(inputs, dict):
            inputs = {k: _as_data(v) for k, v in inputs.items()}
        else:
            inputs = _as_data(inputs)
        found = self._runs[training](inputs)
        plain = [fill_outputs(x, r) for x, r in zip(found, self._repeats, strict=True)]
        return jax.tree.unflatten(self._structure, map(np.asarray, plain))


def function(inputs: Any, outputs: Any, updates: Any = None, name: str | None = None) -> Function:
    """Returns a function from data for some Symbols of a graph to the values of others.

    It is compiled once for each shape of data. The outputs may be any Symbols that come from the
    inputs, `model.layers[3].output` and those inside inner models among them.

    Args:
        inputs: A list (or dict) of Symbols; `K.learning_phase()` in a list stands for a flag, 1
            in training. Without it the layers run as in use.
        outputs: A structure of Symbols.
        updates: Pairs `(variable, new value)`, as `K.update` gives them for Symbols; also
            `(variable, lambda: variable + 1)`. Nothing else that layers write (moving means,
            states) is kept.
        name: For errors.

    Returns:
        A function that takes data in the structure of the inputs, Masked or not, and returns NumPy
        arrays in that of the outputs; invalid steps as `predict` gives them.

    >>> from alphorn.layers.dense import Dense
    >>> x = placeholder((None, 2))
    >>> h = Dense(3, kernel_initializer="ones")(x)
    >>> total = function([x], [h, h * 2.0])
    >>> total([np.ones((1, 2))])[1]
    array([[4., 4., 4.]], dtype=float32)
    """
    return Function(inputs, outputs, updates, name)


def _is_number(x: Any) -> bool:
    return isinstance(x, bool | int)


def _is_value(x: Any) -> bool:
    return isinstance(x, Symbol | Variable | Masked)


def _repeats(x: Any) -> bool:
    """Whether masked steps hold what a recurrent layer repeats there, as in `predict`."""
    operation = x.node.operation if is_symbol(x) and x.node is not None else None
    return getattr(operation, "masking", None) is choose


def _as_data(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) > 1:  # of unequal sequences, perhaps
        table = Table(list(value))
        return table.batch(slice(0, table.rows)).x
    return value if is_masked(value) or hasattr(value, "dtype") else np.asarray(value)


class _Gradient(Layer):
    """The gradients of a Symbol with respect to Symbols and Variables, as a call in the graph.

    Args:
        graphs: From each Symbol and where the history begins, and from there alone, to the loss.
        variables: Those wanted.
    """

    def __init__(self, graphs: list[Graph], whole: Graph, variables: list[Variable]):
        super().__init__(name=auto_name("gradients"))
        self.graphs, self.whole, self.wanted = graphs, whole, variables
        places = {id(s): i for i, s in enumerate(whole.input_symbols)}
        self.places = [[places[id(s)] for s in g.input_symbols[1:]] for g in graphs]
        self.parts = whole.layers
        self.built = True

    def call(self, symbols: list[Any], begins: list[Any]) -> list[Any]:
        """Returns the gradients by the Symbols, then by the Variables."""
        found = [
            _by_input(graph, [x, *(begins[i] for i in places)])
            for graph, x, places in zip(self.graphs, symbols, self.places, strict=True)
        ]
        return found + self._by_variables(begins)

    def _by_variables(self, begins: list[Any]) -> list[Any]:
        if not self.wanted:
            return []
        return value_and_grad(lambda: _total(self.whole, begins), self.wanted)()[1]


def _total(graph: Graph, values: list[Any]) -> Any:
    loss = graph.run(values, "K.gradients")
    return jnp.sum(fill_masked(unmask(loss), mask_of(loss)))


def _by_input(graph: Graph, values: list[Any]) -> Any:
    first, *rest = values

    def loss(data: Any) -> Any:
        return _total(graph, [with_mask(data, mask_of(first)), *rest])

    return with_mask(jax.grad(loss)(unmask(first)), mask_of(first))


def gradients(loss: Any, variables: Any) -> list[Any]:
    """Returns the gradients of a Symbol as Symbols.

    Args:
        loss: A Symbol; of one that is no scalar, the sum.
        variables: One, or a list, of Symbols on the way to the loss and Variables.

    Returns:
        A list of Symbols in the shapes of `variables`, for `function` or `Model`.
    """
    several = isinstance(variables, list | tuple)
    wanted = list(variables) if several else [variables]
    if not is_symbol(loss):
        raise ArgumentError(
            "K.gradients",
            received=f"{type(loss).__name__}, which has no history",
            expected="a Symbol: what Input(...) and calls of layers on it give",
            fix="alphorn.value_and_grad(function, variables), or jax.grad, for arrays",
        )
    symbols = [x for x in wanted if is_symbol(x)]
    others = [x for x in wanted if isinstance(x, Variable)]
    begins = begin_of(loss)
    for x in symbols:
        if not _leads(x, loss):
            raise ArgumentError(
                "K.gradients", f"'{x.name}' of shape {x.shape}", "a Symbol on the way to the loss"
            )
    graphs = [Graph([x, *(b for b in begins if b is not x)], loss) for x in symbols]
    layer = _Gradient(graphs, Graph(begins, loss), others)
    found = iter(layer.node_on((symbols, begins), {}).outputs)
    by_symbol = {id(x): next(found) for x in symbols}
    by_variable = {id(x): next(found) for x in others}
    return [(by_symbol | by_variable)[id(x)] for x in wanted]


def _leads(symbol: Symbol, loss: Symbol) -> bool:
    return symbol is loss or any(s is symbol for n in topological_order([loss]) for s in n.inputs)
