"""capture: what layers put out while a model runs, whatever kind of model it is."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from alphorn.core.layer import Layer
from alphorn.core.rules import choose
from alphorn.core.transforms import jit
from alphorn.core.variable import Variable
from alphorn.core.watching import Visit, watching
from alphorn.errors import ArgumentError
from alphorn.fields import attribute
from alphorn.training.compiled import fill_outputs


def only_looking(run: Callable[[], Any], variables: Sequence[Variable]) -> Any:
    """Returns what `run` does, and takes back what it writes, but for states of generators."""
    before = [(v, v._read()) for v in variables if not v.path.endswith("seed_generator_state")]
    out = run()
    for variable, value in before:
        if variable._read() is not value:
            variable.assign(value)
    return out


class Capturing:
    """What a model tells of the layers inside."""

    if TYPE_CHECKING:
        name: str = attribute()
        run_eagerly: bool = attribute()
        variables: list[Variable] = attribute()
        programs: dict[Any, Any] = attribute()
        _data: Any = attribute()
        _family: Any = attribute()

    def capture(
        self, x: Any, layers: Iterable[Any] | None = None, training: bool = False
    ) -> dict[str, Any]:
        """Runs the model once and returns what layers put out on the way.

        It works for every model, subclasses and inner models included.

        Args:
            x: As in `predict`; one batch.
            layers: Names (`"dense"`, or `"encoder/dense"` inside) or layers; all by default.
            training: Whether the layers run as in training. What they write (moving means,
                states) is not kept.

        Returns:
            NumPy arrays by name, as asked for; by path for all. A layer that puts out several gives
            a list; one that is called several times a list with an entry a call. Invalid steps are
            as `predict` gives them.

        Raises:
            ArgumentError: for a layer that is not there, or does not run: cells of recurrent layers
                run inside a loop, and their values cannot leave it.
        """
        wanted = None if layers is None else list(layers)
        key = ("capture", None if wanted is None else tuple(map(_key, wanted)), bool(training))
        programs = vars(self).setdefault("programs", {})
        if key not in programs:
            captured = _Captured(self, wanted, bool(training))
            programs[key] = captured if self.run_eagerly else jit(captured)
        data = self._data(x, None, None, None, what="capture")
        found: dict[str, list[Any]] = {}
        for call in programs[key](data.batch(slice(0, data.rows)).x):
            found.setdefault(call.name, []).append(call.plain())
        return {name: calls[0] if len(calls) == 1 else calls for name, calls in found.items()}


def _key(wanted: Any) -> Any:
    return wanted if isinstance(wanted, str) else id(wanted)


class _Captured:
    """A model as a function that returns what its layers put out."""

    __name__ = "capture"

    def __init__(self, model: Any, wanted: list[Any] | None, training: bool):
        self.model, self.wanted, self.training = model, wanted, training

    @property
    def variables(self) -> list[Variable]:
        """The model's."""
        return self.model.variables

    def __call__(self, x: Any) -> list["_Call"]:
        """Returns the calls, those of one layer together."""
        with watching() as watch:
            only_looking(lambda: self.model(x, training=self.training), self.variables)
        visits = [v for v in watch.visits if isinstance(v.operation, Layer) and v.parent]
        if self.wanted is None:
            return [_Call.of(_path(v), v) for v in visits]
        return [
            _Call.of(w if isinstance(w, str) else w.name, v)
            for w in self.wanted
            for v in self._visits(w, visits)
        ]

    def _visits(self, wanted: Any, visits: list[Visit]) -> list[Visit]:
        if isinstance(wanted, str):
            found = [v for v in visits if wanted in (v.operation.name, _path(v))]
        else:
            found = [v for v in visits if v.operation is wanted]
        if len({id(v.operation) for v in found}) > 1:
            raise ArgumentError(
                f"capture of '{self.model.name}'",
                received=f"{wanted!r}, the name of several layers",
                expected=f"one of {', '.join(dict.fromkeys(map(_path, found)))}",
            )
        if not found:
            inside = [m for m in self.model._family() if m is wanted or m.name == wanted]
            known = ", ".join(dict.fromkeys(map(_path, visits)))
            raise ArgumentError(
                f"capture of '{self.model.name}'",
                received=repr(wanted),
                expected=f"a layer that it calls: {known}",
                fix="it is not called on these data, or runs inside a loop over time"
                if inside
                else "",
            )
        return found


def _path(visit: Visit) -> str:
    names: list[str] = []
    at: Visit | None = visit
    while at is not None and at.parent is not None:
        names.append(at.operation.name)
        at = at.parent
    return "/".join(reversed(names))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["outputs"], meta_fields=["name", "repeats"]
)
@dataclass
class _Call:
    """What one call put out.

    Args:
        outputs: Arrays and Masked sequences.
        name: By which it is returned.
        repeats: Whether masked steps hold what a recurrent layer repeats.
    """

    outputs: list[Any]
    name: str
    repeats: bool

    @classmethod
    def of(cls, name: str, visit: Visit) -> "_Call":
        """Makes one from a visit."""
        return cls(visit.outputs, name, visit.operation.masking is choose)

    def plain(self) -> Any:
        """Returns the outputs as NumPy arrays; one by itself."""
        found = [np.asarray(fill_outputs(x, self.repeats)) for x in self.outputs]
        return found[0] if len(found) == 1 else found
