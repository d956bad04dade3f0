"""A dataset that tells where its batches were made; its own module, for worker processes."""

import os
import threading
import time

import numpy as np

from alphorn.utils import PyDataset

X = np.arange(24.0, dtype="float32").reshape(12, 2) / 24
Y = X.sum(1, keepdims=True)


class Counted(PyDataset):
    def __init__(self, **options):
        super().__init__(**options)
        self.epochs, self.begun, self.threads = 0, 0, set()

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.threads.add(threading.get_ident())
        time.sleep(0.002 * (index % 3 == 0))  # the first is not the first that is ready
        rows = slice(2 * index, 2 * index + 2)
        return X[rows], Y[rows]

    def on_epoch_begin(self):
        self.begun += 1

    def on_epoch_end(self):
        self.epochs += 1


class Processes(Counted):
    def __getitem__(self, index):
        return np.full((1, 1), os.getpid()), np.full((1, 1), index)


class Endless(PyDataset):
    num_batches = None

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        row = slice(index % 12, index % 12 + 1)
        return X[row], Y[row]


class Ordered(Counted):
    """`asked` has the batches of each epoch; a list for the next is put in by a callback."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = []

    def __getitem__(self, index):
        self.asked[-1].append(index)
        return super().__getitem__(index)


class Broken(Counted):
    def __getitem__(self, index):
        if index == 2:
            raise OSError("batch 2 cannot be read")
        return super().__getitem__(index)
