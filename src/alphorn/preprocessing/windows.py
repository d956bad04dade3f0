"""Windows that slide over a time series, in batches that `fit` takes."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, UnexpectedArgumentError
from alphorn.preprocessing.py_dataset import PyDataset

__all__ = [
    "TimeseriesDataset",
    "TimeseriesGenerator",
    "timeseries_dataset_from_array",
    "timeseries_generator_from_json",
]


class Series:
    """Steps in a row, of which windows are copied.

    Args:
        data: An array, a list, a table of pandas; or what gives arrays by slices (an HDF5 dataset),
            which is read piece by piece.
    """

    def __init__(self, data: Any):
        self.data = data.to_numpy() if hasattr(data, "to_numpy") else data
        if isinstance(data, list | tuple):
            self.data = np.asarray(data)
        self.whole = isinstance(self.data, np.ndarray)
        self._seen: tuple[int, Any] = (0, None)

    def steps(self, rows: Any) -> np.ndarray:
        """Returns the steps at `rows`, a range or an array: `(rows, ...)`."""
        if not self.whole:
            return np.array([self.data[row] for row in _listed(rows)])
        if isinstance(rows, range):
            return self.data[rows.start : rows.stop : rows.step].copy()
        return self.data[rows]

    def windows(self, starts: Any, span: int, rate: int) -> np.ndarray:
        """Returns windows of every `rate`-th of `span` steps, `(starts, steps, ...)`.

        Args:
            starts: Where windows start, a range or an array.
            span: From the first to behind the last step.
            rate: From a step to the next.
        """
        if not len(starts):
            return np.array([])
        if not isinstance(starts, range):
            if self.whole:
                return self._views(span)[starts, ::rate]
            return np.array([self.data[s : s + span : rate] for s in _listed(starts)])
        first, stop = starts[0], starts[-1] + 1
        if self.whole:
            return self._views(span)[first : stop : starts.step, ::rate].copy()
        block = np.asarray(self.data[first : stop - 1 + span])
        return _views(block, span)[:: starts.step, ::rate].copy()

    def _views(self, span: int) -> np.ndarray:
        if self._seen[0] != span:  # NumPy takes longer to make them than to copy a batch
            self._seen = span, _views(self.data, span)
        return self._seen[1]

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy needs: not the views, of which a copy would be as large as all windows."""
        return self.__dict__ | {"_seen": (0, None)}


def _listed(places: Any) -> list[int]:
    return np.asarray(places).tolist()


def _views(data: np.ndarray, span: int) -> np.ndarray:
    """Returns all windows as a view, `(windows, span, ...)`."""
    return np.lib.stride_tricks.as_strided(
        data,
        (len(data) - span + 1, span, *data.shape[1:]),
        (data.strides[0], *data.strides),
        writeable=False,
    )


class TimeseriesGenerator(PyDataset):
    """Batches `(windows, targets)` of a time series; `fit` takes it as it is.

    The window before step i, `data[i - length : i : sampling_rate]`, has the target `targets[i]`.

    Args:
        data: Steps, `(time, ...)`.
        targets: One for each step, `(time, ...)`.
        length: Of a window, in steps of the data.
        sampling_rate: From a step in a window to the next.
        stride: From a window to the next.
        start_index, end_index: The first and last step that is used.
        shuffle: Whether each batch is drawn at random (by `numpy.random.seed`), as in Keras: an
            epoch then may meet a window twice, another never.
        reverse: Whether windows run backwards in time.
        batch_size: Windows a batch.

    Raises:
        ArgumentError: data and targets of unequal lengths; no window.

    >>> batches = TimeseriesGenerator(np.arange(5), np.arange(5) * 10, length=2, batch_size=2)
    >>> len(batches), batches[0]
    (2, (array([[0, 1], [1, 2]]), array([20, 30])))
    """

    def __init__(
        self,
        data: Any,
        targets: Any,
        length: int,
        sampling_rate: int = 1,
        stride: int = 1,
        start_index: int = 0,
        end_index: int | None = None,
        shuffle: bool = False,
        reverse: bool = False,
        batch_size: int = 128,
    ):
        super().__init__()
        if len(data) != len(targets):
            raise ArgumentError(
                "TimeseriesGenerator",
                received=f"{len(data)} steps and {len(targets)} targets",
                expected="a target for each step",
            )
        for name, number in (
            ("length", length),
            ("sampling_rate", sampling_rate),
            ("stride", stride),
            ("batch_size", batch_size),
        ):
            if number < 1:
                raise ArgumentError(f"TimeseriesGenerator: {name}", number, "at least 1")
        last = len(data) - 1 if end_index is None else end_index
        if start_index < 0 or last >= len(data):
            raise ArgumentError(
                "TimeseriesGenerator",
                received=f"start_index={start_index}, end_index={end_index}",
                expected=f"steps from 0 to {len(data) - 1}",
            )
        if start_index + length > last:
            raise ArgumentError(
                "TimeseriesGenerator: no window has a step behind it",
                received=f"length={length} from step {start_index} to {last}",
                expected="start_index + length <= end_index",
                fix="a shorter length",
            )
        self.data, self.targets, self.length = data, targets, length
        self.sampling_rate, self.stride, self.batch_size = sampling_rate, stride, batch_size
        self.start_index, self.end_index = start_index + length, last
        self.shuffle, self.reverse = shuffle, reverse
        self._series: dict[str, tuple[Any, Series]] = {}

    def _as_series(self, name: str) -> Series:
        """Returns the data or the targets, made ready once for as long as they stay the same."""
        source = getattr(self, name)
        known = self._series.get(name)
        if known is None or known[0] is not source:
            known = self._series[name] = (source, Series(source))
        return known[1]

    def __len__(self) -> int:
        """Returns the number of batches."""
        step = self.batch_size * self.stride
        return (self.end_index - self.start_index + step) // step

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a batch."""
        index = _within(index, len(self), "TimeseriesGenerator")
        length = self.length
        if self.shuffle:
            rows = np.random.randint(self.start_index, self.end_index + 1, size=self.batch_size)
            starts = rows - length
        else:
            first = self.start_index + self.batch_size * self.stride * index
            stop = min(first + self.batch_size * self.stride, self.end_index + 1)
            rows = range(first, stop, self.stride)
            starts = range(first - length, stop - length, self.stride)
        windows = self._as_series("data").windows(starts, length, self.sampling_rate)
        targets = self._as_series("targets").steps(rows)
        return (windows[:, ::-1] if self.reverse else windows), targets

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, data and targets as JSON text, `start_index` with the length."""
        texts = {}
        for name in ("data", "targets"):
            value = getattr(self, name)
            value = value.to_numpy() if hasattr(value, "to_numpy") else value
            value = value.tolist() if hasattr(value, "tolist") else value
            try:
                texts[name] = json.dumps(value)
            except TypeError as error:
                raise UnexpectedArgumentError(
                    f"TimeseriesGenerator: {name} cannot stand in JSON",
                    received=str(error),
                    expected="numbers or strings, in lists or an array",
                ) from None
        names = (
            "length sampling_rate stride start_index end_index shuffle reverse batch_size".split()
        )
        return texts | {name: getattr(self, name) for name in names}

    def to_json(self, **kwargs: Any) -> str:
        """Returns the generator with its data as JSON, for `timeseries_generator_from_json`.

        Args:
            **kwargs: For `json.dumps`.
        """
        config = {"class_name": type(self).__name__, "config": self.get_config()}
        return json.dumps(config, **kwargs)


def timeseries_generator_from_json(json_string: str) -> TimeseriesGenerator:
    """Returns the generator that `to_json` wrote, here or in Keras.

    Keras writes the first step that has a whole window before it as `start_index`, and then reads
    it as if it were the first step, a length too far; here the generator is that which was written.

    >>> batches = TimeseriesGenerator([1, 2, 3], [1, 2, 3], length=1)
    >>> timeseries_generator_from_json(batches.to_json())[0][1]
    array([2, 3])
    """
    try:
        config = dict(json.loads(json_string)["config"])
        config |= {name: json.loads(config[name]) for name in ("data", "targets")}
        config["start_index"] -= config["length"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            "timeseries_generator_from_json",
            received=f"{json_string!r:.60}: {type(error).__name__}: {error}",
            expected="the text that to_json() of a TimeseriesGenerator returned",
        ) from None
    return TimeseriesGenerator(**config)


class TimeseriesDataset:
    """Batches of windows that may be gone through again and again, or taken by number.

    `timeseries_dataset_from_array` makes it.
    """

    def __init__(self, series: Series, targets: Series | None, starts: range, **options: Any):
        self._series, self._targets = series, targets
        self._starts: Any = starts
        self._span, self._rate = options["span"], options["rate"]
        self.batch_size: int | None = options["batch_size"]
        self._random: np.random.RandomState | None = options["random"]
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Draws the order of the next epoch, if there is to be one."""
        if self._random is not None:
            self._starts = self._random.permutation(self._starts)

    def __len__(self) -> int:
        """Returns the number of batches; of windows, if there are no batches."""
        return -(-len(self._starts) // (self.batch_size or 1))

    def __getitem__(self, index: int) -> Any:
        """Returns a batch: windows, or `(windows, targets)`."""
        index = _within(index, len(self), "the dataset")
        size = self.batch_size or 1
        starts = self._starts[index * size : (index + 1) * size]
        x = self._series.windows(starts, self._span, self._rate)
        if self._targets is None:
            return x if self.batch_size else x[0]
        y = self._targets.steps(starts)
        return (x, y) if self.batch_size else (x[0], y[0])

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches, in a new order each time if they are shuffled."""
        for i in range(len(self)):
            yield self[i]
        self.on_epoch_end()


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> TimeseriesDataset:
    """Returns batches of windows of a time series; `fit`, `evaluate` and `predict` take them.

    The window that starts at step i has the target `targets[i]`: to predict the step behind each
    window give `data` and `data[sequence_length:]`. Windows without a target are left out.

    Args:
        data: Steps, `(time, ...)`.
        targets: `(time, ...)`, or None for windows alone.
        sequence_length: Steps of a window.
        sequence_stride: From a window to the next.
        sampling_rate: From a step in a window to the next.
        batch_size: Windows a batch; None for windows one by one, without a batch axis.
        shuffle: Whether the windows come in a random order, another one in each epoch.
        seed: Of the orders.
        start_index, end_index: Steps before the first, and from the second on, are not used.

    Raises:
        ArgumentError: numbers that leave no window.

    >>> batches = timeseries_dataset_from_array(np.arange(6), np.arange(6) * 10, 3, batch_size=2)
    >>> batches[0]
    (array([[0, 1, 2], [1, 2, 3]]), array([ 0, 10]))
    """
    where, count = "timeseries_dataset_from_array", len(data)
    start = 0 if start_index is None else start_index
    end = count if end_index is None else end_index
    # As in Keras, `end_index` must be one of the steps.
    if not 0 <= start < end <= count - (end_index is not None):
        raise ArgumentError(
            where,
            received=f"start_index={start_index}, end_index={end_index} of {count} steps",
            expected="0 <= start_index < end_index < steps",
        )
    for name, number in (("sampling_rate", sampling_rate), ("sequence_stride", sequence_stride)):
        if not 0 < number < count:
            raise ArgumentError(f"{where}: {name}", number, f"1 to {count - 1}, for {count} steps")
    for name, number in (("sequence_length", sequence_length), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ArgumentError(f"{where}: {name}", number, "at least 1")
    windows = end - start - (sequence_length - 1) * sampling_rate
    windows = windows if targets is None else min(windows, len(targets) - start)
    if windows < 1:
        raise ArgumentError(
            f"{where}: no window fits",
            received=f"{end - start} steps, and windows that reach over "
            f"{(sequence_length - 1) * sampling_rate + 1}"
            + ("" if targets is None else f", and {len(targets)} targets"),
            expected="at least one window",
            fix="a shorter sequence_length or sampling_rate",
        )
    return TimeseriesDataset(
        Series(data),
        None if targets is None else Series(targets),
        range(start, start + windows, sequence_stride),
        span=(sequence_length - 1) * sampling_rate + 1,
        rate=sampling_rate,
        batch_size=batch_size,
        random=np.random.RandomState(seed) if shuffle else None,
    )


def _within(index: int, count: int, where: str) -> int:
    if not -count <= index < count:
        raise IndexError(f"{where} has {count} batches, and no batch {index}")
    return index % count
