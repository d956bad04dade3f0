"""Data sets from folders of images, texts and sounds; images of another size."""

import functools
import wave

import jax.numpy as jnp
import keras as theirs
import numpy as np
import pytest
from PIL import Image

import alphorn
from alphorn import layers, utils
from alphorn.errors import ArgumentError, DataError, ShapeError, UnexpectedArgumentError
from alphorn.preprocessing import image
from alphorn.preprocessing.datasets import read_wav
from alphorn.preprocessing.image import resize as resizing
from image_recipes import waves

images_from = functools.partial(utils.image_dataset_from_directory, verbose=False)
texts_from = functools.partial(utils.text_dataset_from_directory, verbose=False)
sounds_from = functools.partial(utils.audio_dataset_from_directory, verbose=False)
METHODS = ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(5, 7), (20, 31), (12, 4), (12, 9)])
def test_sizes_are_changed_as_by_keras(method, size):
    x = waves(2, 12, 9)
    for layout, array in (("channels_last", x), ("channels_first", x.transpose(0, 3, 1, 2))):
        for given in (array, array[0], jnp.asarray(array)):
            ours, other = (
                k.preprocessing.image.smart_resize(given, size, method, layout)
                for k in (alphorn, theirs)
            )
            assert isinstance(ours, np.ndarray) == isinstance(given, np.ndarray)
            assert ours.shape == other.shape
            assert np.abs(np.asarray(ours) - np.asarray(other)).max() < 2e-3
    whole = image.smart_resize(x.astype("uint8"), size, method)
    other = theirs.preprocessing.image.smart_resize(x.astype("uint8"), size, method)
    assert whole.dtype == other.dtype
    assert np.abs(whole - other.astype("float32")).max() < 2e-3


def test_other_ways_to_change_a_size():
    x = waves(1, 12, 8)[0]
    blocks = x.reshape(4, 3, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(resizing.resize(x, (4, 4), "area") - blocks).max() < 1e-3
    for method in resizing.METHODS:
        flat = resizing.resize(np.full((7, 5, 1), 3.0, "float32"), (9, 3), method)
        assert np.abs(flat - 3).max() < 1e-5
    for wrong, error, message in (
        (lambda: image.smart_resize(x, 4), ArgumentError, "height, width"),
        (lambda: image.smart_resize(x[0], (4, 4)), ShapeError, "or a batch"),
        (lambda: image.smart_resize(x, (4, 4), "cubic"), ArgumentError, "bicubic"),
        (lambda: image.smart_resize(x, (4, 4), smooth=True), UnexpectedArgumentError, "smooth"),
    ):
        with pytest.raises(error, match=message):
            wrong()


@pytest.fixture
def pictures(tmp_path):
    """Returns a folder of three classes, one of them empty."""
    kinds = {"cat": "png jpg bmp", "dög ü": "gif PNG jpeg", "no one": ""}
    for number, (name, endings) in enumerate(kinds.items()):
        folder = tmp_path / "pictures" / name / "in"
        folder.mkdir(parents=True)
        for i, ending in enumerate(endings.split()):
            x = waves(1, 8 + i, 6 + number)[0].astype("uint8")
            Image.fromarray(x).save(folder / f"{i} {number}.{ending}")
    (tmp_path / "pictures" / "cat" / "notes.md").write_text("no image")
    return tmp_path / "pictures"


def test_images_come_with_the_labels_of_their_folders(pictures):
    plain = images_from(pictures, shuffle=False, image_size=(5, 4), batch_size=4)
    assert plain.class_names == ["cat", "dög ü", "no one"]
    assert [p.rsplit(".", 1)[1] for p in plain.file_paths] == "png jpg bmp gif PNG jpeg".split()
    (x, y), (_, last) = list(plain)
    assert x.shape == (4, 5, 4, 3)
    assert x.dtype == np.float32
    assert y.tolist() == [0, 0, 0, 1]
    assert last.tolist() == [1, 1]
    assert y.dtype == np.int32
    one_hot = next(iter(images_from(pictures, label_mode="categorical")))[1]
    assert one_hot.shape == (6, 3)
    two = images_from(pictures, class_names=["dög ü", "cat"], label_mode="binary", shuffle=False)
    assert next(iter(two))[1].tolist() == [[0], [0], [0], [1], [1], [1]]
    alone = images_from(pictures, labels=None, color_mode="grayscale", image_size=6)
    assert alone.class_names is None
    assert next(iter(alone)).shape == (6, 6, 6, 1)
    own = images_from(pictures, labels=[5, 4, 3, 2, 1, 0], shuffle=False, batch_size=None)
    rows = list(own)
    assert len(rows) == len(own) == 6
    assert rows[0][0].shape == (256, 256, 3)
    assert [int(row[1]) for row in rows] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("shape", ["crop_to_aspect_ratio", "pad_to_aspect_ratio", None])
@pytest.mark.parametrize("method", METHODS)
def test_images_are_fitted_as_by_keras(pictures, shape, method):
    options = {shape: True} if shape else {}
    for layout in ("channels_last", "channels_first"):
        for size in ((5, 9), (16, 4)):
            found = images_from(
                pictures,
                labels=None,
                image_size=size,
                interpolation=method,
                shuffle=False,
                data_format=layout,
                **options,
            )
            for path, x in zip(found.file_paths, next(iter(found)), strict=True):
                whole = theirs.utils.img_to_array(theirs.utils.load_img(path), layout)
                want = theirs.ops.image.resize(
                    whole, size, interpolation=method, data_format=layout, **options
                )
                assert np.abs(x - np.asarray(want)).max() < 2e-3


def test_orders_and_parts_come_from_the_seed(pictures):
    def names(found):
        return [[str(label) for label in y] for _, y in found]

    options = {"batch_size": 1, "image_size": (3, 3), "seed": 5}
    first, again = images_from(pictures, **options), images_from(pictures, **options)
    passes = [names(first), names(first)]
    assert passes == [names(again), names(again)]
    assert passes[0] != passes[1]
    order = np.random.RandomState(5).permutation(6)
    assert first.file_paths == [images_from(pictures, shuffle=False).file_paths[i] for i in order]
    options |= {"validation_split": 0.34}
    training, validation = images_from(pictures, subset="both", **options)
    assert training.file_paths == first.file_paths[:4]
    assert validation.file_paths == first.file_paths[4:]
    for part, both in (("training", training), ("validation", validation)):
        assert images_from(pictures, subset=part, **options).file_paths == both.file_paths
    assert names(validation) == names(validation)


def test_a_folder_trains_a_model(pictures, capsys):
    found = utils.image_dataset_from_directory(pictures, image_size=(4, 4), batch_size=4, seed=1)
    assert "Found 6 files belonging to 3 classes." in capsys.readouterr().out
    model = alphorn.Sequential([layers.Flatten(), layers.Dense(3)])
    loss = alphorn.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(alphorn.optimizers.SGD(1e-5), loss)
    ready = found.map(lambda x, y: (x / 255, y)).cache().prefetch(-1)
    history = model.fit(ready, epochs=3, verbose=0, validation_data=ready)
    assert len(history.history["val_loss"]) == 3
    assert np.isfinite(history.history["loss"]).all()
    assert model.predict(found.map(lambda x, y: x), verbose=0).shape == (6, 3)


def test_batches_can_be_chosen_and_kept(pictures):
    found = images_from(pictures, image_size=(3, 3), batch_size=1, shuffle=False)
    labels = [int(y[0]) for _, y in found]
    assert [int(y[0]) for _, y in found.take(2)] == labels[:2]
    assert [int(y[0]) for _, y in found.after(4)] == labels[4:]
    assert (len(found.take(9)), len(found.after(4)), len(found.after(9))) == (6, 2, 0)
    mixed = found.shuffle(6, seed=1)
    assert sorted(int(y[0]) for _, y in mixed) == sorted(labels)
    assert mixed.class_names == found.class_names
    kept = found.cache()
    next(iter(kept))
    first = list(kept)
    for path in found.file_paths:
        with open(path, "wb"):
            pass
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, kept, strict=True))
    assert len(list(kept.prefetch(2))) == len(list(kept.as_numpy_iterator())) == 6
    with pytest.raises(DataError, match="cannot be read"):
        list(found.prefetch(1))


def test_broken_images_in_a_folder(pictures):
    (pictures / "cat" / "in" / "0 0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"0 0\.png cannot be read as an image"):
        list(images_from(pictures))
    with pytest.warns(UserWarning, match=r"1 files are no images and are left out: .*0 0\.png"):
        found = images_from(pictures, on_error="skip", shuffle=False)
    assert next(iter(found))[1].tolist() == [0, 0, 1, 1, 1]


def test_texts_come_as_strings(tmp_path):
    for name, text in (("a/x", "schön"), ("a/y", "two words"), ("b/z", "three of them")):
        path = tmp_path / "texts" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = texts_from(tmp_path / "texts", shuffle=False, max_length=5)
    x, y = next(iter(found))
    assert x.tolist() == ["schön", "two w", "three"]
    assert y.tolist() == [0, 0, 1]
    tokens = alphorn.preprocessing.text.Tokenizer()
    tokens.fit_on_texts(x)
    model = alphorn.Sequential([layers.Embedding(9, 4, mask_zero=True), layers.LSTM(2)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    ids = found.map(lambda texts, labels: tokens.texts_to_sequences(texts))
    assert model.predict(ids, verbose=0).shape == (3, 2)
    (tmp_path / "texts" / "a" / "w.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"w\.txt is no text"):
        list(texts_from(tmp_path / "texts", labels=None))


def write_wav(path, values, rate=8000, width=2):
    """Writes values from -1 to 1, `(samples, channels)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.round(np.asarray(values) * 2.0 ** (8 * width - 1)).astype("int64")
    whole = np.clip(whole, -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    if width == 1:
        raw = (whole + 128).astype("uint8").tobytes()
    else:
        raw = whole.astype("<i8").view("u1").reshape(-1, 8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(np.shape(values)[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)


def tone(samples, channels=1, rate=8000):
    times = np.arange(samples)[:, None] / rate
    return 0.5 * np.sin(2 * np.pi * 200 * times * np.arange(1, channels + 1))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_of_all_widths(tmp_path, width, channels):
    write_wav(tmp_path / "a.wav", tone(100, channels), width=width)
    found = read_wav(str(tmp_path / "a.wav"))
    assert found.shape == (100, channels)
    assert found.dtype == np.float32
    assert np.abs(found - tone(100, channels)).max() <= 2.0 ** (1 - 8 * width) + 1e-7


def test_sounds_of_unequal_lengths(tmp_path):
    place = tmp_path / "sounds"
    for name, samples in (("a/1", 50), ("a/2", 80), ("b/3", 20)):
        write_wav(place / f"{name}.wav", tone(samples))
    x, y = next(iter(sounds_from(place, shuffle=False)))
    assert x.shape == (3, 80, 1)
    assert y.tolist() == [0, 0, 1]
    assert not x[2, 20:].any()
    cut = next(iter(sounds_from(place, shuffle=False, output_sequence_length=30)))[0]
    assert cut.shape == (3, 30, 1)
    ragged = sounds_from(place, shuffle=False, ragged=True, batch_size=2)
    assert [[len(s) for s in x] for x, _ in ragged] == [[50, 80], [20]]
    model = alphorn.Sequential([layers.GlobalAveragePooling1D(), layers.Dense(2)])
    model.compile("sgd", alphorn.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(model.fit(ragged, epochs=2, verbose=0).history["loss"]).all()
    slow = next(iter(sounds_from(place, shuffle=False, sampling_rate=4000)))[0]
    assert slow.shape == (3, 40, 1)
    assert np.abs(slow[1, 5:35] - tone(40, rate=4000)[5:35]).max() < 0.02


def test_wrong_folders_of_data(pictures, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(b"no sound")
    for wrong, message in (
        (lambda: images_from(tmp_path / "nowhere"), "is no folder"),
        (lambda: images_from(tmp_path / "none"), "has no files"),
        (lambda: images_from(pictures, labels="own"), "'inferred'"),
        (lambda: images_from(pictures, labels=[1]), "1 labels, 6 files"),
        (lambda: images_from(pictures, labels=[1], class_names=["cat"]), "class_names"),
        (lambda: images_from(pictures, labels=None, class_names=["cat"]), "class_names"),
        (lambda: images_from(pictures, class_names=["horse"]), "some of"),
        (lambda: images_from(pictures, label_mode="sparse"), "'categorical'"),
        (lambda: images_from(pictures, label_mode="binary"), "exactly 2 classes"),
        (lambda: images_from(pictures, color_mode="cmyk"), "grayscale"),
        (lambda: images_from(pictures, interpolation="cubic"), "bicubic"),
        (lambda: images_from(pictures, image_size=(1, 2, 3)), "height, width"),
        (lambda: images_from(pictures, format="grain"), "leave format out"),
        (lambda: texts_from(pictures, format="grain"), "leave format out"),
        (lambda: images_from(pictures, subset="both"), "belong together"),
        (lambda: images_from(pictures, validation_split=0.5), "belong together"),
        (lambda: images_from(pictures, subset="test"), "'both'"),
        (lambda: images_from(pictures, subset="both", validation_split=3), "a fraction"),
        (lambda: images_from(pictures, subset="both", validation_split=0.5), "needs a seed"),
        (
            lambda: images_from(pictures, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True),
            "one of them",
        ),
        (lambda: images_from(pictures, on_error="pass"), "'raise' or 'skip'"),
        (lambda: sounds_from(pictures, ragged=True, output_sequence_length=3), "ragged"),
        (lambda: sounds_from(pictures, sampling_rate=0.5), "above 0"),
        (lambda: list(sounds_from(tmp_path / "sounds", labels=None)), r"a\.wav cannot be read"),
    ):
        with pytest.raises((ArgumentError, DataError), match=message):
            wrong()
