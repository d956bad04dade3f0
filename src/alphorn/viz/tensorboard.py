"""The callback TensorBoard: figures, weights, the graph and traces of a run, as its reader wants them."""

import importlib
import re
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alphorn.errors import ArgumentError, UnexpectedArgumentError, missing
from alphorn.files import written_beside
from alphorn.flow import Leaf, Stop, arguments_of, flow_of, leaves_of
from alphorn.layers.embedding import Embedding
from alphorn.training.events import Callback
from alphorn.viz.boxes import badge

_BINS = 30


class TensorBoard(Callback):
    """Writes a run for TensorBoard: `tensorboard --logdir logs`.

    Args:
        log_dir: Where; training and validation have a folder each in it.
        histogram_freq: Epochs between histograms of weights, 0 for none.
        write_graph: Whether the layers are written as a graph, with inner models to open.
        write_images: Whether weights are written as images as well, with the histograms.
        write_steps_per_second: Whether the speed of training is.
        update_freq: "epoch", "batch", or a number of batches between figures of the epoch so far.
        profile_batch: A batch, or a first and a last, of which the profiler's trace is written;
            0 for none.
        embeddings_freq: Epochs between vectors of Embeddings for the projector, 0 for none.
        embeddings_metadata: The file in `log_dir` with a line for each vector, or files by the names
            of layers.
        **old: Of Keras 2: `batch_size`, which changes nothing that is written, and
            `embeddings_layer_names`.

    Figures of batches are written when the device has them; nothing waits for it. With
    `update_freq="epoch"` several steps a call stay several.

    >>> import tempfile, numpy as np, alphorn as keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> folder = tempfile.mkdtemp()
    >>> board = TensorBoard(folder, write_graph=False)
    >>> _ = model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[board])
    >>> len(list(Path(folder).glob("train/events.*")))
    1
    """

    backed_up = ("_batches",)

    def __init__(
        self,
        log_dir: Any = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: Any = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
        **old: Any,
    ):
        super().__init__()
        old.pop("batch_size", None)
        self.embeddings_layer_names = old.pop("embeddings_layer_names", None)
        if strange := [n for n, v in old.items() if v is not None and v is not False]:
            raise UnexpectedArgumentError(
                "TensorBoard", ", ".join(strange), "Keras 3's arguments: gradients are not written"
            )
        self.log_dir = str(log_dir)
        self.histogram_freq, self.write_graph = histogram_freq, write_graph
        self.write_images, self.write_steps_per_second = write_images, write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        if self.update_freq != "epoch" and not _is_count(self.update_freq, 1):
            raise ArgumentError(
                "TensorBoard: update_freq", repr(update_freq), "'epoch', 'batch' or a number"
            )
        self.profile_batch = _range(profile_batch)
        self.embeddings_freq, self.embeddings_metadata = embeddings_freq, embeddings_metadata
        self._writers: dict[str, Any] = {}
        self._pending: deque[tuple[int, Any, float]] = deque()
        self._batches = 0
        self._tracing = False

    @property
    def wants_batches(self) -> bool:
        """Where figures of batches, or a trace of some, are wanted."""
        return self.update_freq != "epoch" or self.profile_batch[1] > 0

    def set_model(self, model: Any) -> None:
        """Takes the model, and what the projector is to know of its Embeddings."""
        super().set_model(model)
        self._writers = {}
        if self.embeddings_freq:
            self._write_projector()

    # --- events

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins to count; writes the graph where it is known."""
        self._batches = 0
        self._pending.clear()
        self._stop_trace(None)
        self._writer("train")
        self._graph_due = self.write_graph
        self._write_graph()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the time."""
        self._begun = self._written = time.perf_counter()
        self._written_batches = self._batches
        self._first: int | None = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Begins a trace where one is wanted."""
        self._first = batch if self._first is None else self._first
        if self._batches + 1 == self.profile_batch[0]:
            try:
                jax.profiler.start_trace(str(self._folder("train")))
                self._tracing = True
            except RuntimeError as error:
                warnings.warn(f"TensorBoard: profile_batch writes nothing: {error}", stacklevel=2)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keeps the batch's figures until the device has them; ends a trace."""
        self._seen = batch + 1
        self._batches += 1
        if self._tracing and self._batches >= self.profile_batch[1]:
            self._stop_trace(logs)
        if self.update_freq == "epoch" or self._batches % self.update_freq:
            return
        now = time.perf_counter()
        speed = (self._batches - self._written_batches) / max(now - self._written, 1e-9)
        self._written, self._written_batches = now, self._batches
        self._pending.append((self._batches, logs, speed))
        while self._pending and getattr(self._pending[0][1], "ready", True):
            self._write_batch(*self._pending.popleft())

    def on_test_end(self, logs: Any = None) -> None:
        """Writes what an evaluation gave, by the steps of training so far."""
        step = self._iterations()
        if step is not None:
            for name, value in (logs or {}).items():
                self._scalar("validation", f"evaluation_{name}_vs_iterations", value, step)
        if "epochs" not in self.params:  # an evaluation by itself
            self._close()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's figures, and weights where they are due."""
        while self._pending:
            self._write_batch(*self._pending.popleft())
        self._write_graph()
        figures = dict(logs or {})
        optimizer = getattr(self.model, "optimizer", None)
        if figures and optimizer is not None:
            figures["learning_rate"] = optimizer.learning_rate
        if figures and self.write_steps_per_second and self._first is not None:
            steps = self._seen - self._first
            figures["steps_per_second"] = steps / (time.perf_counter() - self._begun)
        for name, value in figures.items():
            run = "validation" if name.startswith("val_") else "train"
            self._scalar(run, f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        if self.embeddings_freq and epoch % self.embeddings_freq == 0:
            self._write_embeddings()
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Ends a trace that is under way, and the files."""
        self._stop_trace(None)
        self._close()

    # --- files

    def _folder(self, run: str) -> Path:
        return Path(self.log_dir) / run

    def _writer(self, run: str) -> Any:
        if run not in self._writers:
            self._writers[run] = _package().FileWriter(str(self._folder(run)))
        return self._writers[run]

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _iterations(self) -> int | None:
        optimizer = getattr(self.model, "optimizer", None)
        found = getattr(optimizer, "iterations", None)
        return None if found is None else int(np.asarray(found))

    def _stop_trace(self, logs: Any) -> None:
        if self._tracing:
            getattr(logs, "wait", lambda: None)()  # the device's work belongs to the trace
            self._tracing = False
            jax.profiler.stop_trace()

    def _scalar(self, run: str, tag: str, value: Any, step: int) -> None:
        """Writes a figure; one of several numbers as several tags."""
        numbers = np.asarray(value, float)
        for place in np.ndindex(numbers.shape):
            end = "".join(f"_{i}" for i in place)
            summary = _package().summary.scalar(f"{tag}{end}", float(numbers[place]))
            self._writer(run).add_summary(summary, step)

    def _write_batch(self, step: int, logs: Any, speed: float) -> None:
        for name, value in (logs or {}).items():
            self._scalar("train", f"batch_{name}", value, step)
        if self.write_steps_per_second:
            self._scalar("train", "batch_steps_per_second", speed, step)

    def _write_weights(self, epoch: int) -> None:
        writer, summary = self._writer("train"), _package().summary
        for weight in self.model.weights:
            values, tag = np.asarray(weight, "float64"), weight.path.replace(":", "_")
            finite = values[np.isfinite(values)]
            if finite.size:
                histogram = summary.histogram(
                    f"{tag}/histogram", finite, np.histogram_bin_edges(finite, _BINS)
                )
                writer.add_summary(histogram, epoch)
            image = _as_image(values) if self.write_images and finite.size else None
            if image is not None:
                writer.add_summary(summary.image(f"{tag}/image", image, dataformats="HW"), epoch)

    def _write_graph(self) -> None:
        if not self._graph_due or arguments_of(self.model) is None:
            return
        self._graph_due = False
        try:
            leaves = leaves_of(flow_of(self.model))
        except Exception as error:  # of the user's call on shapes alone: the run goes on
            warnings.warn(f"TensorBoard: no graph: {type(error).__name__}: {error}", stacklevel=2)
            return
        event = _proto("event", "Event")(graph_def=_graph(leaves).SerializeToString())
        self._writer("train").add_event(event, 0)

    def _embeddings(self) -> list[Embedding]:
        """Returns those wanted, of inner models too."""
        wanted = self.embeddings_layer_names
        seen: dict[int, Any] = {}
        waiting = [self.model]
        while waiting:
            layer = waiting.pop(0)
            if id(layer) not in seen:
                seen[id(layer)] = layer
                waiting += layer._layers
        found = [layer for layer in seen.values() if isinstance(layer, Embedding)]
        return [e for e in found if not wanted or e.name in wanted]

    def _write_projector(self) -> None:
        """Writes where the projector finds vectors and their names."""
        layers, metadata = self._embeddings(), self.embeddings_metadata
        if isinstance(metadata, Mapping) and (
            strange := set(metadata) - {layer.name for layer in layers}
        ):
            raise ArgumentError(
                "TensorBoard: embeddings_metadata",
                received=", ".join(sorted(strange)),
                expected=f"names of Embeddings: {', '.join(e.name for e in layers) or 'there are none'}",
            )
        parts = []
        for layer in layers:
            file = metadata.get(layer.name) if isinstance(metadata, Mapping) else metadata
            lines = {"tensor_name": layer.name, "tensor_path": _vectors_file(layer)}
            lines |= {"metadata_path": str(file)} if file else {}
            told = "".join(f"  {name}: {_quoted(value)}\n" for name, value in lines.items())
            parts.append(f"embeddings {{\n{told}}}\n")
        self._write_text("projector_config.pbtxt", parts)

    def _write_embeddings(self) -> None:
        for layer in self._embeddings():
            rows = np.asarray(layer.embeddings, "float32")
            lines = ("\t".join(map(str, row)) + "\n" for row in rows.tolist())
            self._write_text(_vectors_file(layer), lines)

    def _write_text(self, name: str, lines: Iterable[str]) -> None:
        path = Path(self.log_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside, beside.open("w", encoding="utf-8") as file:
            file.writelines(lines)


def _package() -> Any:
    try:
        import tensorboardX
    except ImportError as error:
        raise missing("callbacks.TensorBoard", "tensorboardX", "tensorboard") from error
    return tensorboardX


def _proto(module: str, name: str) -> Any:
    """Returns a message's class; they are made at run time."""
    return getattr(importlib.import_module(f"tensorboardX.proto.{module}_pb2"), name)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _range(given: Any) -> tuple[int, int]:
    """Returns the first and the last batch of a trace; 0, 0 for none."""
    parts = given.split(",") if isinstance(given, str) else given
    try:
        found = [int(part) for part in np.atleast_1d(parts)]
    except (TypeError, ValueError):
        found = []
    if len(found) in (1, 2) and 0 <= found[0] <= found[-1]:
        return found[0], found[-1]
    raise ArgumentError(
        "TensorBoard: profile_batch", repr(given), "a batch, or a first and a last: (10, 20)"
    )


def _quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def _vectors_file(layer: Embedding) -> str:
    return f"{layer.name.replace('/', '_')}.tsv"


def _as_image(values: np.ndarray) -> np.ndarray | None:
    """Returns weights as gray levels, 0 in the middle; kernels of convolutions side by side."""
    image = np.squeeze(np.nan_to_num(values, posinf=0, neginf=0))
    if image.ndim > 3 or not image.size:
        return None
    image = np.atleast_2d(image)
    if image.ndim == 3:  # one for each filter, with a line between
        image = np.pad(np.moveaxis(image, -1, 0), ((0, 0), (0, 0), (0, 1)))
        image = np.concatenate(list(image), 1)[:, :-1]
    elif image.shape[0] > image.shape[1]:
        image = image.T
    return (127.5 + 127.5 * image / max(np.abs(image).max(), 1e-30)).astype("uint8")


def _graph(leaves: list[Leaf]) -> Any:
    """Returns layers as TensorFlow's GraphDef: inner models as scopes, shapes and masks as attributes."""
    graph, shape_of = _proto("graph", "GraphDef")(), _proto("tensor_shape", "TensorShapeProto")
    names, taken = {}, Counter()

    def named(stop: Stop, above: str) -> str:
        """Returns the scope and name of a stop, a number behind it from the second call on."""
        if id(stop) not in names:
            full = above + re.sub(r"[^\w.-]", "_", stop.name)
            names[id(stop)] = f"{full}_{taken[full]}" if taken[full] else full
            taken[full] += 1
        return names[id(stop)]

    for leaf in leaves:
        scope = ""
        for stop in leaf.above:
            scope = named(stop, scope) + "/"
        node = graph.node.add(name=named(leaf.stop, scope), op=leaf.stop.kind)
        node.input.extend(names[id(source.stop)] for source, _ in leaf.sources)
        for shape in leaf.stop.shapes:
            dims = [shape_of.Dim(size=-1 if n is None else n) for n in shape]
            node.attr["_output_shapes"].list.shape.add(dim=dims)
        if leaf.stop.fate:
            node.attr["mask"].s = badge(leaf.stop).encode()
    return graph
