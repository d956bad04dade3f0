"""OrbaxCheckpoint: training in a folder, each array written by the processes that hold it."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.core.variable import Variable
from alphorn.distribution.processes import leads, several
from alphorn.errors import AlphornError, ArgumentError, FileError, missing
from alphorn.training.checkpoints import Saver
from alphorn.training.position import Saved

__all__ = ["OrbaxCheckpoint", "is_orbax", "read_facts", "read_weights"]

FACTS, WEIGHTS, OPTIMIZER, REST = "facts", "weights", "optimizer", "rest"


class OrbaxCheckpoint(Saver):
    """Writes the model and where training is to a folder of Orbax, `alphorn[orbax]`.

    Of weights that are spread over several hosts each writes its own, and none holds all of them.
    `load_model(directory)` and `model.load_weights(directory)` read the last; a step of it is
    `f"{directory}/{step}"`.

    Args:
        directory: Of this run; each step has a folder in it, which is renamed when it is whole.
        monitor: The figure for `save_best_only`.
        verbose: Whether it says so.
        save_best_only: Whether only better epochs are written.
        mode: "min", "max" or "auto".
        save_freq: "epoch", of which the number is then the step; or a number of batches.
        initial_value_threshold: What must be beaten first.
        max_to_keep: How many steps are kept; None for all.
        save_on_background: Whether training goes on as soon as the arrays are copied.
        save_weights_only: Whether optimizer, position and what makes the model are left out.
        resume: Whether `fit` goes on from the last step, as `BackupAndRestore` does.

    >>> import tempfile, numpy as np, alphorn as keras
    >>> folder, x = tempfile.mkdtemp(), np.ones((8, 2), "float32")
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> checkpoint = keras.callbacks.OrbaxCheckpoint(folder, resume=True)
    >>> model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[checkpoint]).epoch
    [0, 1]
    >>> again = keras.models.load_model(folder)
    >>> again.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=[checkpoint]).epoch
    [2]
    """

    comes_last = True

    def __init__(
        self,
        directory: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
        max_to_keep: int | None = 1,
        save_on_background: bool = True,
        save_weights_only: bool = False,
        resume: bool = False,
    ):
        super().__init__(
            monitor,
            verbose,
            save_best_only,
            save_weights_only,
            mode,
            save_freq,
            initial_value_threshold,
            save_on_background,
        )
        if resume and save_weights_only:
            raise ArgumentError(
                "OrbaxCheckpoint: resume", "True, with save_weights_only=True", "one of them"
            )
        _package()
        self.directory, self.max_to_keep, self.resume = os.fspath(directory), max_to_keep, resume
        self._manager: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Goes on from the last step, with `resume`."""
        self._batches = 0
        path = Path(self.directory)
        if not (self.resume and is_orbax(path)):
            return
        facts = read_facts(path)
        position = facts["position"]
        if position is None:
            raise ArgumentError(
                f"OrbaxCheckpoint: {path}", "weights alone", "what fit wrote", "model.load_weights"
            )

        def read(variables: list[Variable]) -> list[Any]:
            places = [tuple(place) for place in facts["places"]]
            owners = dict(zip(places, variables, strict=False))
            parts = _read(path, facts, (WEIGHTS, OPTIMIZER, REST), owners)
            return [parts[part][i] for part, i in places]

        self.model.fit_position.resume(Saved(position), str(path), read)

    def write(self, epoch: int, logs: Any, batch: int | None, said: str) -> None:
        """Writes a step."""
        step = epoch if batch is None else int(self.model.optimizer.iterations)
        ocp, manager = _package(), self._opened()
        latest = manager.latest_step()
        if latest is not None and step <= latest:
            raise ArgumentError(
                f"OrbaxCheckpoint: directory {self.directory}",
                received=f"step {step}, where step {latest} is there already",
                expected="a folder of this run alone",
                fix="resume=True goes on from it; or name another folder",
            )
        facts, parts = _state(self.model, self.save_weights_only)
        arrays = {
            name: ocp.args.StandardSave({str(i): a for i, a in enumerate(part)})
            for name, part in parts.items()
            if part
        }
        with _told(f"step {step} of {self.directory} could not be written"):
            manager.save(
                step, args=ocp.args.Composite(**arrays, **{FACTS: ocp.args.JsonSave(facts)})
            )
        if self.verbose and leads():
            print(f"Epoch {epoch + 1}: step {step} written to {self.directory}{said}")

    def check(self) -> None:
        """Raises FileError where a step could not be written."""
        if self._manager is not None:
            with _told(f"a step of {self.directory} could not be written"):
                self._manager.check_for_errors()

    def wait_until_finished(self) -> None:
        """Waits until all steps are written, by all processes."""
        if self._manager is not None:
            with _told(f"a step of {self.directory} could not be written"):
                self._manager.wait_until_finished()

    def on_train_end(self, logs: Any = None) -> None:
        """Waits for the files."""
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with _told(f"a step of {self.directory} could not be written"):
                manager.close()  # which waits

    on_train_error = on_train_end

    def is_multihost_enabled(self) -> bool:
        """Returns whether several processes write."""
        return several()

    def is_primary_host(self) -> bool:
        """Returns whether this process is the one that prints."""
        return leads()

    def _opened(self) -> Any:
        if self._manager is None:
            options = _package().CheckpointManagerOptions(
                max_to_keep=self.max_to_keep, enable_async_checkpointing=self.save_on_background
            )
            with _told(f"{self.directory} could not be opened"):
                Path(self.directory).mkdir(parents=True, exist_ok=True)
                self._manager = _manager(Path(self.directory), options)
        return self._manager


def is_orbax(path: Path) -> bool:
    """Returns whether a path is a folder of Orbax, or of one step in it."""
    return path.is_dir() and _located(path)[1] is not None


def read_facts(path: Path) -> dict[str, Any]:
    """Returns what a step says of its arrays.

    Args:
        path: Of the folder, for the last step, or of a step.
    """
    root, step = _located(path)
    with _told(f"{path} could not be read"), contextlib.closing(_manager(root)) as manager:
        ocp = _package()
        facts = manager.restore(step, args=ocp.args.Composite(**{FACTS: ocp.args.JsonRestore()}))
        if not {"model", "arrays", "places"} <= set(facts[FACTS]):
            raise FileError(f"{path}", "another program's folder", "what OrbaxCheckpoint wrote")
        return facts[FACTS]


def read_weights(model: Any, path: Path) -> None:
    """Reads a model's weights, and its optimizer's state where there is one and it fits.

    Args:
        model: Built as the one that was written.
        path: As for `read_facts`.

    Raises:
        ArgumentError: it is of another model; nothing has changed then.
    """
    facts = read_facts(path)
    variables = {WEIGHTS: list(model.weights)}
    optimizer = model.optimizer
    if optimizer is not None and facts["arrays"].get(OPTIMIZER):
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        variables[OPTIMIZER] = list(optimizer.variables)
    for part, found in list(variables.items()):
        there = [tuple(shape) for _, shape, _ in facts["arrays"][part]]
        here = [v.shape for v in found]
        same_kind = part == WEIGHTS or facts["optimizer"] == type(optimizer).__name__
        if there == here and same_kind:
            continue
        if part == WEIGHTS:
            raise ArgumentError(
                f"load_weights: {path}",
                received=f"weights of shapes {there}",
                expected=f"those of '{model.name}': {here}",
                fix="build the model as it was",
            )
        del variables[part]
        warnings.warn(
            f"{path}: the state of {facts['optimizer']} in it does not fit {model.optimizer.name} of"
            f" '{model.name}', which starts anew",
            stacklevel=4,
        )
    owners = {(part, i): v for part, found in variables.items() for i, v in enumerate(found)}
    read = _read(path, facts, tuple(variables), owners)
    for (part, i), variable in owners.items():
        variable.assign(read[part][i])


def _state(model: Any, weights_only: bool) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Returns what is noted, and the arrays: of the weights, of the optimizer, and the rest."""
    optimizer = None if weights_only else model.optimizer
    variables = {WEIGHTS: list(model.weights)}
    if optimizer is not None:
        variables[OPTIMIZER] = list(optimizer.variables)
    parts = {part: [v.value for v in found] for part, found in variables.items()}
    paths = {part: [v.path for v in found] for part, found in variables.items()}
    known = {id(v): (part, i) for part, found in variables.items() for i, v in enumerate(found)}
    position, places = getattr(model, "fit_position", None), []
    saved = None
    if position is not None and not weights_only:
        saved = position.state(lambda v: v.value)
        rest = parts[REST] = []
        paths[REST] = []
        owners = [*position.variables, *[None] * len(saved.arrays)]
        for variable, array in zip(owners, saved.arrays, strict=False):
            place = known.get(id(variable))
            if place is None:
                place = (REST, len(rest))
                rest.append(array)
                paths[REST].append("" if variable is None else variable.path)
            places.append(place)
    described = {
        part: [
            [path, list(a.shape), str(a.dtype)] for path, a in zip(paths[part], found, strict=True)
        ]
        for part, found in parts.items()
    }
    facts = {
        "model": None if weights_only else model.to_json(),
        "optimizer": None if optimizer is None else type(optimizer).__name__,
        "arrays": described,
        "places": places,
        "position": None if saved is None else saved.facts,
    }
    return facts, parts


def _read(
    path: Path, facts: dict[str, Any], parts: Sequence[str], owners: dict[tuple[str, int], Variable]
) -> dict[str, list[Any]]:
    """Returns the arrays of parts; each process has read what it will hold of them."""
    ocp, (root, step) = _package(), _located(path)

    def place(part: str, i: int, shape: list[int], dtype: str) -> Any:
        variable = owners.get((part, i))
        if variable is None or variable.layout is None:
            return np.empty(shape, jnp.dtype(dtype))
        return jax.ShapeDtypeStruct(
            tuple(shape), jnp.dtype(dtype), sharding=variable.layout.backend_layout
        )

    described = {part: facts["arrays"][part] for part in parts if facts["arrays"].get(part)}
    targets = {
        part: ocp.args.StandardRestore(
            {str(i): place(part, i, shape, dtype) for i, (_, shape, dtype) in enumerate(found)}
        )
        for part, found in described.items()
    }
    with _told(f"{path} could not be read"), contextlib.closing(_manager(root)) as manager:
        read = manager.restore(step, args=ocp.args.Composite(**targets))
        return {
            part: [read[part][str(i)] for i in range(len(found))]
            for part, found in described.items()
        }


def _located(path: Path) -> tuple[Path, int | None]:
    """Returns the folder and the step that a path means: the last where it names none."""
    if path.name.isdigit() and (path / FACTS).is_dir():
        return path.parent, int(path.name)
    steps = [int(p.name) for p in path.iterdir() if p.name.isdigit() and (p / FACTS).is_dir()]
    return path, max(steps, default=None)


def _manager(root: Path, options: Any = None) -> Any:
    ocp = _package()
    if options is None:
        options = ocp.CheckpointManagerOptions(create=False)
    return ocp.CheckpointManager(root.absolute(), options=options)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Raises FileError for what Orbax and the file system raise, each in its own way."""
    try:
        yield
    except (AlphornError, ImportError):
        raise
    except Exception as error:
        raise FileError(
            f"OrbaxCheckpoint: {what}",
            received=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="whole steps that stand there were left as they were",
        ) from error


def _package() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise missing("callbacks.OrbaxCheckpoint", "orbax-checkpoint", "orbax") from error
    return orbax.checkpoint
