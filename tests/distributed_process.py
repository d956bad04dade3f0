"""One of two processes that train a model together; run by test_distribution.py."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import alphorn
from distributed_cases import small_rows, tagger, trained

distribution = alphorn.distribution


def refusal(attempt: Any) -> str:
    """Returns what the error says that an attempt raises."""
    try:
        attempt()
    except alphorn.StateError as error:
        return str(error)
    return "no error"


def main(port: str, number: int, folder: Path) -> None:
    np.random.seed(number)  # the generators of process 0 hold
    distribution.initialize(f"localhost:{port}", 2, number)
    draw = np.random.randint(2**31)
    distribution.set_distribution(distribution.DataParallel())
    callbacks = alphorn.callbacks
    model, found = trained(
        callbacks.BackupAndRestore(folder / "model.backup"),
        callbacks.OrbaxCheckpoint(folder / "steps"),
    )
    model.save(folder / "model.keras")
    x, y = small_rows(8)
    same = all(
        all(map(np.array_equal, loaded.get_weights(), model.get_weights()))
        for loaded in map(alphorn.models.load_model, (folder / "model.keras", folder / "steps"))
    )

    other = tagger()
    others = refusal(lambda: other.predict(x[:7] + number, batch_size=7, verbose=0))
    other.layers[-1].kernel.assign(np.full((2, 3), number))
    weights = refusal(lambda: other.fit(x, y, verbose=0))

    other.set_weights([np.arange(6.0).reshape(2, 3), np.zeros(3)])
    odd = other.predict(x[:7], batch_size=7, verbose=0)
    half = slice(4 * number, 4 * number + 4)
    with distribution.DataParallel(auto_shard_dataset=False).scope():
        own = other.predict(x[half], batch_size=4, verbose=0)
    np.savez(
        folder / f"{number}.npz",
        **found,
        draw=draw,
        same=same,
        refused=[others, weights],
        odd=odd,
        own=own,
        files=sorted(p.name for p in folder.glob("model*")),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
