"""Data sets from folders of files: which files, with which labels, read batch by batch."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, DataError
from alphorn.preprocessing.image.files import files_in
from alphorn.preprocessing.image.folders import class_folders

__all__ = ["Batches", "FileDataset", "datasets_from"]

LABEL_MODES = ("int", "categorical", "binary", None)


class Batches:
    """Batches that can be gone through again and again: in `fit`, or in a loop.

    Args:
        begin: Called for each pass; returns its batches.
        count: How many there are.
        like: Batches whose `class_names` and `file_paths` are these ones' too.

    Attributes:
        class_names: By number, or None.
        file_paths: Of all files, in the order before the first pass.
    """

    class_names: list[str] | None = None
    file_paths: list[str]

    def __init__(self, begin: Callable[[], Iterator[Any]], count: int, like: Any = None):
        self._begin = begin
        self._count = count
        if like is not None:
            self.class_names = like.class_names
            self.file_paths = like.file_paths

    def __iter__(self) -> Iterator[Any]:
        """Returns one pass."""
        return self._begin()

    def __len__(self) -> int:
        """Returns the number of batches."""
        return self._count

    def as_numpy_iterator(self) -> Iterator[Any]:
        """Returns one pass: the batches are NumPy's already."""
        return iter(self)

    def map(self, function: Callable[..., Any]) -> "Batches":
        """Returns what a function makes of each batch, `function(images, labels)`."""

        def begin() -> Iterator[Any]:
            return (function(*b) if isinstance(b, tuple) else function(b) for b in self)

        return Batches(begin, len(self), self)

    def take(self, count: int) -> "Batches":
        """Returns the first batches of each pass."""
        return Batches(lambda: islice(iter(self), count), min(count, len(self)), self)

    def after(self, count: int) -> "Batches":
        """Returns all but the first batches of each pass; `skip` is another name for it."""
        return Batches(lambda: islice(iter(self), count, None), max(len(self) - count, 0), self)

    skip = after

    def cache(self) -> "Batches":
        """Returns the same batches, kept in memory from the first whole pass on."""
        kept: list[Any] = []

        def begin() -> Iterator[Any]:
            if kept:
                yield from kept
                return
            seen = []
            for batch in self:
                seen.append(batch)
                yield batch
            kept[:] = seen

        return Batches(begin, len(self), self)

    def shuffle(self, buffer_size: int, seed: int | None = None) -> "Batches":
        """Returns the batches in another order, each drawn from the next `buffer_size`."""
        source = np.random.RandomState(seed)

        def begin() -> Iterator[Any]:
            waiting: list[Any] = []
            for batch in self:
                waiting.append(batch)
                if len(waiting) >= max(buffer_size, 1):
                    yield waiting.pop(source.randint(len(waiting)))
            while waiting:
                yield waiting.pop(source.randint(len(waiting)))

        return Batches(begin, len(self), self)

    def prefetch(self, buffer_size: int) -> "Batches":
        """Returns the same batches, made on a thread while those before are used.

        Args:
            buffer_size: How many ahead; -1 (TensorFlow's AUTOTUNE) for 2.
        """
        ahead = 2 if buffer_size < 0 else buffer_size

        def begin() -> Iterator[Any]:
            batches = iter(self)
            waiting: deque[Any] = deque()
            with ThreadPoolExecutor(1, "alphorn-batches") as pool:
                for _ in range(len(self)):
                    while len(waiting) <= ahead:
                        waiting.append(pool.submit(next, batches, _END))
                    batch = waiting.popleft().result()
                    if batch is _END:
                        return
                    yield batch

        return Batches(begin, len(self), self)


_END = object()


class FileDataset(Batches):
    """Batches read from files, on threads, while those before are used.

    Args:
        paths: Of the files.
        labels: `(files,)` or `(files, classes)`, or None.
        read: Returns the row in a file.
        stack: Makes rows a batch.
        batch_size: Rows a batch; None for rows one by one.
        shuffle: Whether the files of each pass are in a new order.
        seed: Makes the orders the same each time.
        class_names: By number, or None.
    """

    def __init__(
        self,
        paths: list[str],
        labels: np.ndarray | None,
        read: Callable[[str], Any],
        stack: Callable[[list[Any]], Any],
        batch_size: int | None,
        shuffle: bool,
        seed: int,
        class_names: list[str] | None,
    ):
        self.file_paths = paths
        self.labels = labels
        self.class_names = class_names
        self._read, self._stack = read, stack
        self._batch_size = batch_size
        self._random = np.random.RandomState(seed) if shuffle else None
        super().__init__(self._pass, -(-len(paths) // (batch_size or 1)))

    def _pass(self) -> Iterator[Any]:
        count = len(self.file_paths)
        order = np.arange(count) if self._random is None else self._random.permutation(count)
        size = self._batch_size or 1
        chunks = deque(order[start : start + size] for start in range(0, count, size))
        waiting: deque[Any] = deque()
        workers = min(4, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers, "alphorn-files") as pool:
            try:
                while chunks or waiting:
                    while chunks and len(waiting) < 3:
                        rows = chunks.popleft()
                        read = [pool.submit(self._read, self.file_paths[row]) for row in rows]
                        waiting.append((rows, read))
                    rows, read = waiting.popleft()
                    yield self._batch(rows, [row.result() for row in read])
            finally:  # the loop was left early, or a file cannot be read
                pool.shutdown(cancel_futures=True)

    def _batch(self, rows: np.ndarray, values: list[Any]) -> Any:
        if self._batch_size is None:
            return values[0] if self.labels is None else (values[0], self.labels[rows[0]])
        batch = self._stack(values)
        return batch if self.labels is None else (batch, self.labels[rows])


def datasets_from(
    directory: Any,
    labels: Any,
    label_mode: str | None,
    class_names: Sequence[str] | None,
    batch_size: int | None,
    shuffle: bool,
    seed: int | None,
    validation_split: float | None,
    subset: str | None,
    follow_links: bool,
    verbose: bool,
    endings: Sequence[str],
    read: Callable[[str], Any],
    stack: Callable[[list[Any]], Any],
    usable: Callable[[list[str]], np.ndarray] | None = None,
) -> Any:
    """Returns the data set of a folder, or `[training, validation]` for `subset="both"`.

    Args:
        directory, labels, label_mode, class_names, batch_size, shuffle, seed, validation_split,
            subset, follow_links, verbose: As in `image_dataset_from_directory`.
        endings: Of the files.
        read, stack: As in `FileDataset`.
        usable: Says which of the files can be read; all where it is None.
    """
    _check(directory, labels, label_mode, class_names, shuffle, seed, validation_split, subset)
    if labels is None or label_mode is None:
        labels = label_mode = None
    seed = int(np.random.randint(10**6)) if seed is None else seed
    paths, numbers, names = _index(directory, labels, class_names, follow_links, endings)
    if verbose:
        about = "" if names is None else f" belonging to {len(names)} classes"
        print(f"Found {len(paths)} files{about}.")
    if label_mode == "binary" and len(names or ()) != 2:
        raise ArgumentError("label_mode", f"'binary' with classes {names}", "exactly 2 classes")
    order = np.arange(len(paths))
    if shuffle:
        np.random.RandomState(seed).shuffle(order)
    targets = None if numbers is None else _targets(np.asarray(numbers), label_mode, names)
    found = []
    for part in ("training", "validation") if subset == "both" else (subset,):
        chosen = order
        if validation_split:
            cut = len(order) - int(validation_split * len(order))
            chosen = order[:cut] if part == "training" else order[cut:]
            if verbose:
                print(f"Using {len(chosen)} files for {part}.")
        some = [paths[i] for i in chosen]
        if usable is not None and some:
            kept = usable(some)
            some = [path for path, keep in zip(some, kept, strict=True) if keep]
            chosen = chosen[kept]
        if not some:
            raise DataError(
                f"{directory} has no files" + (f" for {part}" if part else ""),
                expected="names that end with " + ", ".join(endings),
                fix="name the folder that holds the folders of the classes, or say labels=None",
            )
        known = None if targets is None else targets[chosen]
        mixed = shuffle and not (subset == "both" and part == "validation")
        found.append(FileDataset(some, known, read, stack, batch_size, mixed, seed, names))
    return found if subset == "both" else found[0]


def _check(
    directory: Any,
    labels: Any,
    label_mode: str | None,
    class_names: Any,
    shuffle: bool,
    seed: int | None,
    validation_split: float | None,
    subset: str | None,
) -> None:
    if not os.path.isdir(directory):
        raise DataError(f"{directory} is no folder", expected="a folder of files")
    if not (labels is None or isinstance(labels, list | tuple | np.ndarray)):
        if labels != "inferred":
            raise ArgumentError("labels", repr(labels), "'inferred', None, or a list of numbers")
    elif class_names:
        raise ArgumentError(
            "class_names", "with labels of your own", "labels='inferred'", "leave class_names out"
        )
    if label_mode not in LABEL_MODES:
        raise ArgumentError("label_mode", repr(label_mode), f"one of {LABEL_MODES}")
    if subset not in ("training", "validation", "both", None):
        raise ArgumentError("subset", repr(subset), "'training', 'validation' or 'both'")
    if bool(validation_split) != bool(subset):
        raise ArgumentError(
            "validation_split and subset belong together",
            received=f"validation_split={validation_split}, subset={subset!r}",
            fix="validation_split=0.2, subset='both', seed=0",
        )
    if validation_split and not 0 < validation_split < 1:
        raise ArgumentError("validation_split", validation_split, "a fraction between 0 and 1")
    if validation_split and shuffle and seed is None:
        raise ArgumentError(
            "validation_split with shuffle=True needs a seed",
            fix="give both calls the same seed: else files would stand in both parts",
        )


def _index(
    directory: Any,
    labels: Any,
    class_names: Sequence[str] | None,
    follow_links: bool,
    endings: Sequence[str],
) -> tuple[list[str], Any, list[str] | None]:
    """Returns the paths, sorted by class, the number of each one's class, the classes' names."""
    if labels is None or not isinstance(labels, str):
        paths = [os.path.join(*f) for f in files_in(directory, endings, follow_links)]
        if labels is None:
            return paths, None, None
        if len(labels) != len(paths):
            raise DataError(
                f"labels do not fit the files in {directory}",
                received=f"{len(labels)} labels, {len(paths)} files",
                expected="a label for each file, in the order of the sorted paths",
            )
        return paths, labels, [str(label) for label in sorted(set(labels))]
    names = class_folders(directory)
    if class_names is not None:
        if not set(class_names) <= set(names):
            raise ArgumentError("class_names", list(class_names), f"some of {names}")
        names = list(class_names)
    paths, numbers = [], []
    for number, name in enumerate(names):
        found = files_in(os.path.join(directory, name), endings, follow_links)
        paths += [os.path.join(*f) for f in found]
        numbers += [number] * len(found)
    return paths, numbers, names


def _targets(numbers: np.ndarray, label_mode: str | None, names: Sequence[str] | None) -> Any:
    if label_mode == "binary":
        return numbers.astype("float32")[:, None]
    if label_mode == "categorical":
        return np.eye(len(names or ()), dtype="float32")[numbers]
    return numbers.astype("int32")
