"""Callback and CallbackList: who is told of the steps and epochs of training; History."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from alphorn.charts import curves
from alphorn.errors import ArgumentError
from alphorn.training.interrupts import interrupts_held

EVENTS = tuple(
    f"on_{phase}{kind}_{when}"
    for phase in ("train_", "test_", "predict_")
    for kind in ("batch",)
    for when in ("begin", "end")
) + tuple(
    f"on_{what}_{when}"
    for what in ("train", "test", "predict", "epoch", "batch")
    for when in ("begin", "end")
)


class Callback:
    """Base of callbacks: override what should happen when.

    `self.model` is the model, `self.params` says epochs, steps and verbosity; `logs` turn into
    floats when they are read. Setting `self.model.stop_training = True` ends training.
    """

    model: Any = None
    params: dict[str, Any]
    # Whether it is told of each event after all others, wherever it stands in the list.
    comes_last: ClassVar[bool] = False
    # Names of the attributes that `BackupAndRestore` brings back: numbers, texts, None, arrays, or
    # lists of them.
    backed_up: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.params = {}

    def set_params(self, params: dict[str, Any]) -> None:
        """Takes epochs, steps and verbosity."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Takes the model."""
        self.model = model

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Runs before an epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Runs after an epoch, its validation included."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Runs before training."""

    def on_train_end(self, logs: Any = None) -> None:
        """Runs after training."""

    def on_train_error(self) -> None:
        """Runs instead, where training ends by an error or Ctrl-C."""

    def on_test_begin(self, logs: Any = None) -> None:
        """Runs before evaluation."""

    def on_test_end(self, logs: Any = None) -> None:
        """Runs after evaluation."""

    def on_predict_begin(self, logs: Any = None) -> None:
        """Runs before prediction."""

    def on_predict_end(self, logs: Any = None) -> None:
        """Runs after prediction."""

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Is `on_train_batch_begin` by its old name."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """Is `on_train_batch_end` by its old name."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Runs before a training batch."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Runs after a training batch."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Runs before a batch of evaluation."""

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Runs after a batch of evaluation."""

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Runs before a batch of prediction."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Runs after a batch of prediction."""

    @property
    def wants_batches(self) -> bool:
        """Whether it must be called after every single batch."""
        names = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
        return any(getattr(type(self), n) is not getattr(Callback, n) for n in names)


class CallbackList(Callback):
    """Several callbacks as one: each event goes to all, in their order.

    Args:
        callbacks: One, or a list (of lists) of them.
        add_history: Whether a `History` follows, where none is among them.
        add_progbar: As `add_history`, for `ProgbarLogger`.
        model: Given to each.
        **params: Given to each: epochs, steps, verbose.
    """

    progress_bar: ClassVar[type[Callback] | None] = None

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ):
        super().__init__()
        self.callbacks: list[Any] = list(_flat(callbacks))
        for wanted, kind in ((add_history, History), (add_progbar, self.progress_bar)):
            if wanted and kind and not any(isinstance(c, kind) for c in self.callbacks):
                self.callbacks.append(kind())
        for callback in self.callbacks:
            if not hasattr(callback, "set_model"):
                raise ArgumentError(
                    "callbacks",
                    received=repr(callback),
                    expected="objects of class Callback",
                    fix="derive from alphorn.callbacks.Callback, or use LambdaCallback",
                )
        self.callbacks.sort(key=lambda c: getattr(type(c), "comes_last", False))
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def append(self, callback: Any) -> None:
        """Puts a callback at the end."""
        self.callbacks.append(callback)

    def set_params(self, params: dict[str, Any]) -> None:
        """Gives them to each."""
        super().set_params(params)
        for callback in self.callbacks if params else ():
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Gives it to each."""
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)

    def __call__(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Calls `on_<event>` of each, with `{}` where there are no logs, as functions expect them."""
        counted = "batch" in event or event.startswith("epoch")
        logs = args[counted:] or (kwargs.pop("logs", None),)
        args = (*args[:counted], {} if logs[0] is None else logs[0])
        for callback in self.callbacks:
            getattr(callback, f"on_{event}")(*args, **kwargs)

    @property
    def wants_batches(self) -> bool:
        """Whether any must be called after every single batch."""
        return any(getattr(c, "wants_batches", True) for c in self.callbacks)


def _flat(callbacks: Any) -> Iterator[Any]:
    if isinstance(callbacks, list | tuple):
        for inner in callbacks:
            yield from _flat(inner)
    elif isinstance(callbacks, CallbackList):
        yield from callbacks.callbacks
    elif callbacks is not None:
        yield callbacks


def _to_all(event: str) -> Callable:
    @functools.wraps(getattr(Callback, event))
    def tell(self: CallbackList, *args: Any, **kwargs: Any) -> None:
        self(event.removeprefix("on_"), *args, **kwargs)

    tell.__doc__ = "Tells each."
    return tell


for _event in EVENTS:
    setattr(CallbackList, _event, _to_all(_event))


class History(Callback):
    """Keeps the figures of every epoch: `history.history["loss"]`; `fit` returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []
        # The epochs in which each figure came: validation may be rarer.
        self.epochs_of: dict[str, list[int]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts the epochs anew; figures go on where this object was used before."""
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the epoch's figures, all or, after Ctrl-C, none."""
        figures = dict(logs or {})
        with interrupts_held():
            self.epoch.append(epoch)
            for name, value in figures.items():
                self.history.setdefault(name, []).append(value)
                self.epochs_of.setdefault(name, []).append(epoch)

    def plot(
        self, metrics: Sequence[str] | None = None, title: str = "", to_file: Any = None
    ) -> Any:
        """Draws the figures of each epoch; arguments and result are those of `viz.curves`."""
        return curves(self, metrics, title, to_file)


def as_figures(logs: Mapping[str, Any] | None) -> str:
    """Returns figures as a line: `loss: 0.1234 - accuracy: 0.9876`."""
    parts = []
    for name, value in (logs or {}).items():
        number = float(np.mean(value))
        text = f"{number:.4f}" if number == 0 or abs(number) >= 1e-3 else f"{number:.4e}"
        parts.append(f"{name}: {text}")
    return " - ".join(parts)
