"""Profile: where the time of training goes."""

import queue
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from alphorn.charts import SERIES, finished, new_chart
from alphorn.training.ahead import seconds_held_up
from alphorn.training.events import Callback


@dataclass
class EpochProfile:
    """Where the time of one epoch went, in seconds, without its validation.

    Args:
        total: From its first batch to the end of its last step.
        computing: The device at work.
        waiting: The device without work while the next batch was made.
        making: The host making batches, mostly while the device is at work.
        compiling: Steps held up by programs that were traced and compiled.
        steps: Steps of training.
        valid: Steps of sequences that are no padding, 0 where no lengths are known.
        computed: Steps of sequences that were computed, padding included.
    """

    total: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0
    making: float = 0.0
    compiling: float = 0.0
    steps: int = 0
    valid: int = 0
    computed: int = 0

    @property
    def waiting_share(self) -> float:
        """The share of the time in which the device waited for data."""
        return self.waiting / self.total if self.total else 0.0

    @property
    def padding_share(self) -> float:
        """The share of the computed steps of sequences that is padding."""
        return 1 - self.valid / self.computed if self.computed else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Valid steps of sequences a second."""
        return self.valid / self.total if self.total else 0.0


class _Watch:
    """Notes on a thread of its own when steps end; it knows nothing of the callback or model."""

    def __init__(self) -> None:
        self.asked: queue.Queue[Any] = queue.Queue()
        self.finished = time.perf_counter()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (asked := self.asked.get()) is not None:
            if isinstance(asked, threading.Event):
                asked.set()
                continue
            epoch, before, made, compiling, logs = asked
            getattr(logs, "wait", lambda: None)()
            now = time.perf_counter()
            epoch.waiting += max(0.0, made - max(self.finished, before))
            epoch.computing += max(0.0, now - max(self.finished, made) - compiling)
            self.finished = now

    def settle(self) -> float:
        """Waits for the steps so far; returns when the last ended."""
        done = threading.Event()
        self.asked.put(done)
        done.wait()
        return self.finished


class Profile(Callback):
    """Measures what each epoch's time was spent on.

    Args:
        verbose: Whether a table is printed at the end of training.
        plot: Where a picture of the epochs is written (by Matplotlib), or None.

    `epochs` holds an `EpochProfile` for each epoch. When a step ends is seen by a thread that waits
    for its figures, so that steps overlap with the making of batches as they do without it.

    >>> import numpy as np, alphorn as keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> profile = Profile(verbose=0)
    >>> _ = model.fit(np.ones((64, 3)), np.ones((64, 1)), verbose=0, callbacks=[profile])
    >>> profile.epochs[0].steps
    2
    """

    def __init__(self, verbose: int = 1, plot: Any = None):
        super().__init__()
        self.verbose, self.plot = verbose, plot
        self.epochs: list[EpochProfile] = []

    @property
    def wants_batches(self) -> bool:
        """Several steps a call stay several."""
        return False

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins to watch."""
        self.epochs = []
        self._counted = (0, 0)
        self._watch = _Watch()
        self._stop = weakref.finalize(self, self._watch.asked.put, None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begins an epoch."""
        self._now = EpochProfile()
        self._begun = self._dispatched = self._watch.finished = time.perf_counter()
        self._held_up = seconds_held_up()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes that a batch is there."""
        self._made = time.perf_counter()
        self._dispatched += self._compiling(self._made - self._dispatched)
        self._now.making += self._made - self._dispatched

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes that a step is under way."""
        before, self._dispatched = self._dispatched, time.perf_counter()
        compiling = self._compiling(self._dispatched - self._made)
        self._now.steps = batch + 1
        self._watch.asked.put((self._now, before, self._made, compiling, logs))

    def _compiling(self, most: float) -> float:
        """Returns how much of the seconds since the last call went into compiling, and counts it."""
        before, self._held_up = self._held_up, seconds_held_up()
        found = min(self._held_up - before, most)
        self._now.compiling += found
        return found

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keeps what the epoch took."""
        if not self._now.steps:
            return
        self._now.total = self._watch.settle() - self._begun
        report = getattr(self.model, "padding_report", None)
        if report is not None:
            valid, computed = self._counted
            self._now.valid, self._now.computed = report.valid - valid, report.computed - computed
            self._counted = (report.valid, report.computed)
        self.epochs.append(self._now)

    def on_train_end(self, logs: Any = None) -> None:
        """Prints the table and draws the picture."""
        self._stop()
        if self.verbose:
            Console(width=100).print(self.table())
        if self.plot is not None:
            self._draw()

    def table(self) -> Table:
        """Returns the epochs as a table."""
        table = Table(title="where the time went")
        columns = "epoch seconds computing waiting making compiling steps padding tokens/s"
        for column in columns.split():
            table.add_column(column, justify="right")
        for number, epoch in enumerate(self.epochs, 1):
            known = bool(epoch.computed)
            table.add_row(
                str(number),
                f"{epoch.total:.3g}",
                *(
                    f"{seconds / epoch.total:.0%}"
                    for seconds in (epoch.computing, epoch.waiting, epoch.making, epoch.compiling)
                ),
                str(epoch.steps),
                f"{epoch.padding_share:.0%}" if known else "-",
                f"{epoch.tokens_per_second:,.0f}" if known else "-",
            )
        return table

    def _draw(self) -> None:
        figure, (axes,) = new_chart(7, 4)
        numbers = range(1, len(self.epochs) + 1)
        bottom = [0.0] * len(self.epochs)
        parts = {
            "computing": [e.computing for e in self.epochs],
            "waiting for data": [e.waiting for e in self.epochs],
            "compiling": [e.compiling for e in self.epochs],
        }
        for (name, seconds), colour in zip(parts.items(), SERIES, strict=False):
            axes.bar(numbers, seconds, bottom=bottom, label=name, color=colour)
            bottom = [b + s for b, s in zip(bottom, seconds, strict=True)]
        axes.set(xlabel="epoch", ylabel="seconds", xticks=list(numbers))
        axes.legend(frameon=False)
        finished(figure, self.plot)
