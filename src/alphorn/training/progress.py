"""What training shows: a bar in a terminal or notebook, plain lines in a file."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alphorn.training.events import Callback, CallbackList, as_figures

# The bar looks for figures that are there about so often: reading others would wait for the device.
_SECONDS_BETWEEN_LOOKS = 0.1


class ProgressBar(Callback):
    """Shows how far an epoch is and its figures.

    Args:
        verbose: 1 for a bar (lines where the output is no terminal), 2 for a line an epoch.
    """

    def __init__(self, verbose: int = 1):
        super().__init__()
        self.verbose = verbose
        self._progress: Progress | None = None
        self._task: Any = None
        self._looked = 0.0
        self._pending: Any = None

    @property
    def wants_batches(self) -> bool:
        """Never: it looks when it is told."""
        return False

    def _start(self, title: str, steps: int | None) -> None:
        self._began = time.perf_counter()
        self._title = title
        console = Console(file=sys.stdout)
        if self.verbose != 1 or not (console.is_terminal or console.is_jupyter):
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            refresh_per_second=10,
        )
        self._progress.start()
        self._task = self._progress.add_task(title, total=steps, figures="")

    def _step(self, done: int, logs: Any) -> None:
        if self._progress is None:
            return
        now = time.perf_counter()
        self._pending = logs if self._pending is None else self._pending
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        options = {}
        if getattr(self._pending, "ready", True):
            options["figures"] = as_figures(self._pending)
            self._pending = None
        self._progress.update(self._task, completed=done, **options)

    def _stop(self, steps: int, logs: Any) -> None:
        seconds = time.perf_counter() - self._began
        if self._progress is not None:
            self._progress.update(
                self._task, completed=steps, total=steps, figures=as_figures(logs)
            )
            self._progress.stop()
            self._progress = None
            return
        parts = (self._title, f"{steps} steps", f"{seconds:.1f} s", as_figures(logs))
        print(" - ".join(p for p in parts if p), flush=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the epoch's bar."""
        self._done = 0
        self._start(f"Epoch {epoch + 1}/{self.params.get('epochs')}", self.params.get("steps"))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar."""
        self._done = batch + 1
        self._step(self._done, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows the epoch's figures."""
        self._stop(self._done, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    on_train_error = on_train_end

    @property
    def _within_fit(self) -> bool:
        return "epochs" in self.params

    def on_test_begin(self, logs: Any = None) -> None:
        """Starts a bar, where evaluation stands by itself."""
        if not self._within_fit:
            self._done = 0
            self._start("Evaluate", self.params.get("steps"))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar."""
        if not self._within_fit:
            self._done = batch + 1
            self._step(self._done, logs)

    def on_test_end(self, logs: Any = None) -> None:
        """Shows the figures."""
        if not self._within_fit:
            self._stop(self._done, logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        """Starts a bar."""
        self._done = 0
        self._start("Predict", self.params.get("steps"))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar."""
        self._done = batch + 1
        self._step(self._done, {})

    def on_predict_end(self, logs: Any = None) -> None:
        """Ends the bar."""
        self._stop(self._done, {})


CallbackList.progress_bar = ProgressBar
