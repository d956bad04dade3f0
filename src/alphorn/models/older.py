"""Model's methods of Keras 2, and the names that its arguments had."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from alphorn.errors import ArgumentError, UnexpectedArgumentError
from alphorn.fields import attribute
from alphorn.training.workers import set_workers


class Older:
    """What programs for Keras 2 call on a model."""

    if TYPE_CHECKING:
        fit: Any = attribute()
        evaluate: Any = attribute()
        predict: Any = attribute()
        _family: Any = attribute()

    def fit_generator(
        self,
        generator: Any,
        steps_per_epoch: int | None = None,
        epochs: int = 1,
        verbose: Any = 1,
        callbacks: Any = None,
        validation_data: Any = None,
        validation_steps: int | None = None,
        validation_freq: Any = 1,
        class_weight: Any = None,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
        shuffle: bool = True,
        initial_epoch: int = 0,
        **old: Any,
    ) -> Any:
        """Is `fit`, which takes generators too.

        Args:
            generator: Of `(x, y)` or `(x, y, sample_weight)`; or a `PyDataset`.
            max_queue_size, workers: How many threads make the batches of a `PyDataset` ahead; a
                plain generator makes them one by one.
            use_multiprocessing: Threads give the same batches.
            steps_per_epoch, epochs, verbose, callbacks, validation_data, validation_steps: As in
                `fit`; so are `validation_freq`, `class_weight`, `shuffle` and `initial_epoch`.
            **old: Names of Keras 1: `nb_epoch`, `samples_per_epoch`, `nb_val_samples`, ...
        """
        max_queue_size = old.pop("max_q_size", max_queue_size)
        workers = old.pop("nb_worker", workers)
        old.pop("pickle_safe", None)
        epochs = old.pop("nb_epoch", epochs)
        steps_per_epoch = _steps(old.pop("samples_per_epoch", None), generator) or steps_per_epoch
        validation_steps = _steps(old.pop("nb_val_samples", None), validation_data) or (
            validation_steps
        )
        if old:
            raise UnexpectedArgumentError("fit_generator", ", ".join(old), "its own arguments")
        for data in (generator, validation_data):
            set_workers(data, workers, max_queue_size)
        return self.fit(
            generator,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_freq=validation_freq,
        )

    def evaluate_generator(
        self,
        generator: Any,
        steps: int | None = None,
        callbacks: Any = None,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
        verbose: Any = 0,
    ) -> Any:
        """Is `evaluate`, which takes generators too; arguments as in `fit_generator`."""
        set_workers(generator, workers, max_queue_size)
        return self.evaluate(generator, steps=steps, callbacks=callbacks, verbose=verbose)

    def predict_generator(
        self,
        generator: Any,
        steps: int | None = None,
        callbacks: Any = None,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
        verbose: Any = 0,
    ) -> Any:
        """Is `predict`, which takes generators too; arguments as in `fit_generator`."""
        set_workers(generator, workers, max_queue_size)
        return self.predict(generator, steps=steps, callbacks=callbacks, verbose=verbose)

    def predict_classes(self, x: Any, batch_size: int | None = None, verbose: Any = 0) -> Any:
        """Returns the likeliest class of each row, or whether a single output is above 0.5."""
        found = self.predict(x, batch_size=batch_size, verbose=verbose)
        return found.argmax(-1) if found.shape[-1] > 1 else (found > 0.5).astype("int32")

    def predict_proba(self, x: Any, batch_size: int | None = None, verbose: Any = 0) -> np.ndarray:
        """Is `predict`."""
        return self.predict(x, batch_size=batch_size, verbose=verbose)

    def reset_states(self) -> None:
        """Sets the kept states of stateful layers to zero, inner models' included."""
        for layer in self._family():
            if layer is not self and hasattr(layer, "reset_state"):
                layer.reset_state()


def _steps(samples: int | None, generator: Any) -> int | None:
    """Returns steps for Keras 1's number of samples, by the batch size that a generator tells."""
    if samples is None:
        return None
    size = getattr(generator, "batch_size", None)
    if not size:
        raise ArgumentError(
            "fit_generator: samples_per_epoch",
            received=f"{samples} samples from a {type(generator).__name__}, which tells no size",
            expected="the number of batches",
            fix="steps_per_epoch=samples // batch_size",
        )
    return math.ceil(samples / size)
