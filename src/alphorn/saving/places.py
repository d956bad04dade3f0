"""Where each Variable of a model stands in a file, as Keras 3 lays files out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alphorn.core.layer import Layer
from alphorn.core.random import SeedGenerator
from alphorn.core.tracking import Tracked
from alphorn.core.variable import Variable
from alphorn.models.model import Model
from alphorn.models.sequential import Sequential
from alphorn.naming import snake_case
from alphorn.optimizers import LossScaleOptimizer, Optimizer

OPTIMIZER = "optimizer"
# What files say wrote them: both Kerases tell forms of configs apart by it.
KERAS2, KERAS3 = "2.15.0", "3.15.1"


@dataclass(frozen=True)
class Holder:
    """A part of a model that owns Variables.

    Args:
        where: Its place, e.g. `layers/dense`; empty for the model itself.
        name: Its own name.
        variables: In the order in which files number them.
    """

    where: str
    name: str
    variables: list[Variable]

    def place(self, index: int) -> str:
        """Returns the place of a Variable, e.g. `layers/dense/vars/0`."""
        return f"{self.group}/{index}"

    @property
    def group(self) -> str:
        """The place of all its Variables, e.g. `layers/dense/vars`."""
        return f"{self.where}/vars" if self.where else "vars"


def holders(model: Any, leave: Iterable[Any] = ()) -> list[Holder]:
    """Returns the parts of a layer or model, each once, in the order of Keras's files.

    Args:
        model: The layer or model.
        leave: Parts that do not count.
    """
    return _walk(model, "", {id(part) for part in leave})


def optimizer_holders(model: Any, leave: Iterable[Any] = ()) -> list[Holder]:
    """Returns what a compiled model's file holds of its optimizer."""
    optimizer: Optimizer | None = getattr(model, "optimizer", None)
    if optimizer is None or any(optimizer is part for part in leave):
        return []
    found = [Holder(OPTIMIZER, optimizer.name, optimizer.variables)]
    if isinstance(optimizer, LossScaleOptimizer):  # Keras writes the inner one's state twice
        inner = optimizer.inner_optimizer
        found.append(Holder(f"{OPTIMIZER}/inner_optimizer", inner.name, inner.variables))
    return found


def _children(layer: Any) -> list[tuple[str, Any]]:
    """Parts with their names in the file; what comes twice counts where it comes first.

    The order is Keras's: `layers` before all else in graphs, among the other attributes by the
    alphabet in subclasses, private ones last. Built-in layers have Keras's names, without `_`.
    """
    built_in = type(layer).__module__.startswith("alphorn.")
    renamed = layer.file_names if isinstance(layer, Layer) else {}
    attributes = {
        renamed.get(name, name.lstrip("_") if built_in else name): value
        for name, value in sorted(vars(layer).items(), key=lambda n: (n[0].startswith("_"), n[0]))
        if name not in layer.untracked and not name.startswith("__")
    }
    if isinstance(layer, Model):
        graph = layer.graph is not None or isinstance(layer, Sequential)
        attributes["layers"] = layer.layers
        first = "layers" if graph else ""
        ordered = sorted(attributes, key=lambda n: (n != first, n.startswith("_"), n))
        attributes = {name: attributes[name] for name in ordered}
    return [part for name, value in attributes.items() for part in _parts(name, value)]


def _parts(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Tracked | SeedGenerator):
        return [(path, value)]
    if not isinstance(value, list | tuple | dict):
        return []
    counts: dict[str, int] = {}
    found: list[tuple[str, Any]] = []
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, Tracked | SeedGenerator):
            identity = getattr(item, "file_identity", None) or {}
            name = snake_case(identity.get("class_name", type(item).__name__))
        elif isinstance(item, list | tuple | dict):
            name = "container"
        else:
            continue
        count = counts.get(name, 0)
        counts[name] = count + 1
        found += _parts(f"{path}/{name}_{count}" if count else f"{path}/{name}", item)
    return found


def _walk(layer: Any, path: str, seen: set[int]) -> list[Holder]:
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    if isinstance(layer, SeedGenerator):
        return [Holder(path, layer.name, [layer.state])]
    found = [Holder(path, layer.name, layer._own_variables())]
    for name, part in _children(layer):
        found += _walk(part, f"{path}/{name}" if path else name, seen)
    return found
