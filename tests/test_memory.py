"""Loading takes twice the file's size and a little more, in every format."""

import gc
import tracemalloc
from pathlib import Path

import jax
import pytest

import alphorn
from alphorn import layers

BOUND = 6 << 20


def table() -> alphorn.Model:
    """A model of one large weight: the hardest case, for a part is the whole."""
    ids = alphorn.Input((None,), dtype="int32")
    rows = layers.Embedding(100_000, 40, embeddings_initializer="zeros")(ids)
    return alphorn.Model(ids, rows)


def live() -> int:
    return sum(a.nbytes for a in jax.live_arrays())


@pytest.mark.parametrize("case", "m.keras m.h5 m.weights.h5 w.h5 m.safetensors".split())
def test_loading_stays_within_twice_the_file(case: str, tmp_path: Path) -> None:
    model, path = table(), tmp_path / case
    whole = case in ("m.keras", "m.h5")
    (model.save if whole else model.save_weights)(path)
    gc.collect()
    before = live()
    tracemalloc.start()
    try:
        if whole:
            loaded = alphorn.models.load_model(path)
        else:
            model.load_weights(path)
            loaded = model
        on_host = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The arrays of JAX are not traced: one model more, or the new values beside the old ones.
    on_device = live() - before if whole else 4 * loaded.count_params()
    assert on_device >= 16_000_000
    assert on_host + on_device < 2 * path.stat().st_size + BOUND
