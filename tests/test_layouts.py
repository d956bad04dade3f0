"""Layers over spatial axes: channels first, masks of rows, other names, early arguments."""

from typing import Any

import jax
import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers as L
from alphorn.core.masked import Masked, mask_of, unmask

RANDOM = np.random.default_rng(0)
SIZES = (6, 5, 4)
CHANNELS = 4
MAKE: dict[str, Any] = {
    "Conv": lambda L, r, **k: getattr(L, f"Conv{r}D")(6, 2, 2, groups=2, **k),
    "ConvTranspose": lambda L, r, **k: getattr(L, f"Conv{r}DTranspose")(3, 2, 2, "same", **k),
    "DepthwiseConv": lambda L, r, **k: getattr(L, f"DepthwiseConv{r}D")(
        2, 2, depth_multiplier=2, **k
    ),
    "SeparableConv": lambda L, r, **k: getattr(L, f"SeparableConv{r}D")(3, 2, padding="same", **k),
    "MaxPooling": lambda L, r, **k: getattr(L, f"MaxPooling{r}D")(2, padding="same", **k),
    "AveragePooling": lambda L, r, **k: getattr(L, f"AveragePooling{r}D")(3, 2, **k),
    "GlobalMaxPooling": lambda L, r, **k: getattr(L, f"GlobalMaxPooling{r}D")(**k),
    "GlobalAveragePooling": lambda L, r, **k: getattr(L, f"GlobalAveragePooling{r}D")(
        keepdims=True, **k
    ),
    "AdaptiveMaxPooling": lambda L, r, **k: getattr(L, f"AdaptiveMaxPooling{r}D")(3, **k),
    "AdaptiveAveragePooling": lambda L, r, **k: getattr(L, f"AdaptiveAveragePooling{r}D")(4, **k),
    "ZeroPadding": lambda L, r, **k: getattr(L, f"ZeroPadding{r}D")(1, **k),
    "Cropping": lambda L, r, **k: getattr(L, f"Cropping{r}D")(1, **k),
    "UpSampling": lambda L, r, **k: getattr(L, f"UpSampling{r}D")(2, **k),
}
WITHOUT = {("Cropping", 1), ("UpSampling", 1), ("DepthwiseConv", 3), ("SeparableConv", 3)}
CASES = [(n, r) for n in MAKE for r in (1, 2, 3) if (n, r) not in WITHOUT]


def data(rank: int, first: bool = True) -> Any:
    x = RANDOM.normal(size=(3, *SIZES[:rank], CHANNELS)).astype(np.float32)
    return np.moveaxis(x, -1, 1) if first else x


def close(a: Any, b: Any) -> None:
    a, b = np.asarray(unmask(a)), np.asarray(unmask(b))
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1e-5 * max(1.0, np.abs(b).max())


@pytest.mark.parametrize(("name", "rank"), CASES)
def test_channels_may_come_first(name: str, rank: int) -> None:
    x = data(rank)
    ours, theirs = (
        MAKE[name](library.layers, rank, data_format="channels_first")
        for library in (alphorn, keras)
    )
    for layer in (ours, theirs):
        layer.build(x.shape)
    theirs.set_weights(weights := [RANDOM.normal(size=w.shape) for w in theirs.get_weights()])
    ours.set_weights(weights)
    close(ours(x), theirs(x))
    assert ours.compute_output_shape(x.shape) == tuple(theirs(x).shape)


@pytest.mark.parametrize(("name", "rank"), CASES)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_mask_of_rows_says_nothing_of_axes(name: str, rank: int, layout: str) -> None:
    x, rows = data(rank, layout == "channels_first"), np.array([True, False, True])
    layer = MAKE[name](L, rank, data_format=layout)
    plain = np.asarray(layer(x))
    out = layer(Masked(x, rows))
    close(np.asarray(unmask(out))[rows], plain[rows])
    mask = np.asarray(mask_of(out)).reshape(3, -1)
    assert mask.any(1).tolist() == rows.tolist()


def test_time_distributed_takes_channels_first() -> None:
    x = RANDOM.normal(size=(2, 3, CHANNELS, 5, 6)).astype(np.float32)
    mask = np.array([[True, True, False], [True, False, False]])
    layer = L.TimeDistributed(L.Conv2D(2, 3, data_format="channels_first"))
    out = layer(Masked(x, mask))
    assert np.array_equal(out.mask, mask)
    close(np.asarray(out.data)[mask], layer.layer(x[mask]))


@pytest.mark.parametrize(
    "name", ["Conv", "MaxPooling", "GlobalMaxPooling", "AdaptiveMaxPooling", "ZeroPadding"]
)
def test_steps_cannot_be_the_channels(name: str) -> None:
    x = data(1)
    layer = MAKE[name](L, 1, data_format="channels_first")
    with pytest.raises(alphorn.MaskError, match=r"(?s)channels_first.*channels_last"):
        layer(x, mask=np.ones(x.shape[:2], bool))


@pytest.mark.parametrize("name", ["Conv", "MaxPooling", "AdaptiveMaxPooling", "UpSampling"])
def test_windows_over_nested_masks_are_refused(name: str) -> None:
    layer = MAKE[name](L, 2)
    with pytest.raises(alphorn.MaskError, match="nested mask"):
        layer(data(2, first=False), mask=np.ones((3, *SIZES[:2]), bool))


@pytest.mark.parametrize("largest", [True, False])
def test_adaptive_windows_hold_valid_steps_only(largest: bool) -> None:
    x = data(1, first=False)
    mask = np.array([[1, 1, 0, 1, 1, 1], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
    make = L.AdaptiveMaxPooling1D if largest else L.AdaptiveAveragePooling1D
    out = make(4)(Masked(np.where(mask[..., None], x, np.nan), mask))
    for row, (first, length) in enumerate(((0, 6), (1, 4), (0, 0))):
        for j in range(4):
            steps = range(first + j * length // 4, first - (-(j + 1) * length // 4))
            held = [s for s in steps if mask[row, s]]
            assert bool(out.mask[row, j]) == bool(held)
            if held:
                found = x[row, held].max(0) if largest else x[row, held].mean(0)
                close(out.data[row, j], found)


def test_equal_entries_give_the_gradient_of_one() -> None:
    x = np.zeros((1, 6, 2), np.float32)
    ours, theirs = (
        jax.grad(lambda x, layer=layer: layer(x).sum())(x)
        for layer in (L.AdaptiveMaxPooling1D(3), keras.layers.AdaptiveMaxPooling1D(3))
    )
    close(ours, theirs)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos3", "lanczos5"])
def test_missing_steps_have_no_weight(kind: str) -> None:
    x, mask = data(2, first=False), np.ones((3, 6), bool)
    mask[0, 2] = mask[1, 4:] = mask[2, :2] = False
    layer = L.UpSampling2D((2, 1), interpolation=kind)
    junk = np.where(mask[..., None, None], x, np.inf)
    out = layer(Masked(junk, mask))
    assert np.array_equal(out.mask, np.repeat(mask, 2, 1))
    assert np.isfinite(out.data).all()
    constant = layer(Masked(np.ones_like(x), mask))
    close(np.asarray(constant.data)[np.asarray(constant.mask)], np.ones((2 * mask.sum(), 5, 4)))


def test_other_names_are_keras_s() -> None:
    names = [n for n in dir(keras.layers) if "Conv" in n or "Pool" in n]
    for name in names:
        target = getattr(keras.layers, name).__name__
        assert getattr(L, name) is getattr(L, target)
        assert alphorn.layers.deserialize({"class_name": name, "config": config_for(name)})


def test_transposed_convolutions_answer_to_their_first_name() -> None:
    assert L.Deconvolution2D is L.Conv2DTranspose
    made = L.deserialize({"class_name": "Deconvolution3D", "config": config_for("Conv")})
    assert type(made) is L.Conv3DTranspose


def config_for(name: str) -> dict[str, Any]:
    if "Pool" in name:
        if name.startswith("Global"):
            return {}
        return {"output_size" if name.startswith("Adaptive") else "pool_size": 2}
    return {"kernel_size": 2} | ({} if name.startswith("Depthwise") else {"filters": 2})


def test_names_of_arguments_in_early_keras() -> None:
    layer = L.Convolution1D(nb_filter=3, filter_length=2, border_mode="same", subsample_length=2)
    assert (layer.filters, layer.kernel_size, layer.padding, layer.strides) == (
        3,
        (2,),
        "same",
        (2,),
    )
    pool = L.MaxPooling1D(pool_length=3, stride=2, border_mode="valid")
    assert (pool.pool_size, pool.strides, pool.padding) == ((3,), (2,), "valid")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.Conv1D(2, 2, strides=2, dilation_rate=2), "one of them 1"),
        (lambda: L.Conv1D(3, 2, groups=2), "multiple of groups=2"),
        (lambda: L.Conv1D(4, 2, groups=3)(data(1, False)), "multiple of groups=3"),
        (lambda: L.Conv1DTranspose(3, 2, padding="causal"), "'valid', 'same'"),
        (lambda: L.Conv1DTranspose(3, 2, strides=2, output_padding=2), "output_padding"),
        (lambda: L.Conv2DTranspose(3, 2, strides=2, output_padding=(1,)), "output_padding"),
        (lambda: L.DepthwiseConv1D(2, depth_multiplier=0), "depth_multiplier"),
        (lambda: L.SeparableConv2D(2, 2)(data(1, False)), "rank 4"),
        (lambda: L.Conv2D(2, 7)(data(2, False)), "no window fits"),
        (lambda: L.AdaptiveMaxPooling2D((1, 2, 3)), "output_size"),
        (lambda: L.AdaptiveMaxPooling1D(0), "output_size"),
        (lambda: L.AdaptiveMaxPooling1D(2)(np.ones((2, 0, 3))), "nothing to divide"),
        (lambda: L.ZeroPadding2D((1, 2, 3)), "each of 2 axes"),
        (lambda: L.Cropping1D(-1), "cropping"),
        (lambda: L.Cropping2D(3)(data(2, False)), "more than 6"),
        (lambda: L.UpSampling2D(0), "size"),
        (lambda: L.UpSampling2D(interpolation="area"), "interpolation"),
    ],
)
def test_errors_say_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(alphorn.errors.AlphornError, match=message):
        call()
