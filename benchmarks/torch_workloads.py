"""The workloads hand-written in PyTorch, as lines of JSON: what a user might take instead.

    python -m benchmarks.torch_workloads lstm [--packed]

The padded models know no masks (the transformer's attention apart); `--packed` runs recurrent
layers over packed sequences, which do no work on padding.
"""

import argparse
import json
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.data import WORDS, inputs_and_targets, seconds


class Recurrent(nn.Module):
    """Embedding, recurrent layers, and a dense layer on the last state or on every output."""

    def __init__(self, kind: str, size: int, units: int, both: bool, depth: int, out: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, size)
        make = getattr(nn, kind)
        self.layers = make(size, units, depth, bidirectional=both, batch_first=True)
        self.dense = nn.Linear(units * (2 if both else 1), out)
        self.packed = False

    def forward(self, ids: Any) -> Any:
        h = self.embedding(ids)
        if self.packed:
            lengths = (ids != 0).sum(1).cpu()
            h = nn.utils.rnn.pack_padded_sequence(h, lengths, True, enforce_sorted=False)
        outputs, state = self.layers(h)
        if self.dense.out_features > 1:
            if self.packed:
                length = ids.shape[1]
                outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, True, total_length=length)
            return self.dense(outputs)
        last = state[0] if isinstance(state, tuple) else state
        joined = torch.cat([last[-2], last[-1]], -1) if self.layers.bidirectional else last[-1]
        return self.dense(joined)


class TextConvolutions(nn.Module):
    """Convolutions of three widths and their maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 128)
        self.windows = nn.ModuleList([nn.Conv1d(128, 64, width) for width in (3, 4, 5)])
        self.dense = nn.Linear(192, 1)

    def forward(self, ids: Any) -> Any:
        h = self.embedding(ids).transpose(1, 2)
        return self.dense(torch.cat([functional.relu(w(h)).amax(-1) for w in self.windows], -1))


class Transformer(nn.Module):
    """Two encoder layers and the mean of the steps that exist."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 128)
        options = {"activation": "gelu", "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, **options)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.dense = nn.Linear(128, 1)

    def forward(self, ids: Any) -> Any:
        valid = ids != 0
        h = self.layers(self.embedding(ids), src_key_padding_mask=~valid)
        return self.dense((h * valid[..., None]).sum(1) / valid.sum(1, keepdim=True))


def convolutions() -> nn.Module:
    """Returns the small network of images, channels last."""
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def perceptron() -> nn.Module:
    """Returns a 784-128-64-1 network."""
    layers = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1)]
    return nn.Sequential(*layers)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": perceptron,
    "lstm": lambda: Recurrent("LSTM", 128, 128, False, 1, 1),
    "gru": lambda: Recurrent("GRU", 128, 128, False, 1, 1),
    "bilstm": lambda: Recurrent("LSTM", 128, 64, True, 2, 1),
    "tagger": lambda: Recurrent("LSTM", 64, 64, True, 1, 9),
    "textcnn": TextConvolutions,
    "transformer": Transformer,
    "cnn2d": convolutions,
}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(11)
    name = options.workload
    given, targets = inputs_and_targets(name, options.samples)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = torch.tensor(given, device=device), torch.tensor(targets, device=device)
    if name == "cnn2d":
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    model = MODELS[name]().to(device)
    if isinstance(model, Recurrent):
        model.packed = options.packed
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def loss_of(rows: Any) -> Any:
        if name == "tagger":
            valid = x[rows] != 0
            labels = y[rows, :, 0].long()
            return functional.cross_entropy(model(x[rows])[valid], labels[valid])
        return functional.binary_cross_entropy_with_logits(model(x[rows]), y[rows])

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def fit() -> None:
        for rows in torch.randperm(len(x)).split(options.batch):
            optimizer.zero_grad()
            loss_of(rows).backward()
            optimizer.step()
        wait()

    def predict() -> None:
        with torch.inference_mode():
            for rows in torch.arange(len(x)).split(options.batch):
                model(x[rows]).cpu()

    fit()
    figures = {"train_us": min(seconds(fit) for _ in range(options.epochs)) / len(x) * 1e6}
    predict()
    figures["predict_us"] = min(seconds(predict) for _ in range(2)) / len(x) * 1e6
    with torch.inference_mode():
        figures["loss"] = float(
            np.mean([loss_of(r).item() for r in torch.arange(len(x)).split(options.batch)])
        )
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
