"""Iterators of images: in training, on threads, seeded, with functions of the user's own."""

import copy
import pickle
import random
import warnings

import numpy as np
import pytest
from PIL import Image

import alphorn as keras
from alphorn import layers
from alphorn.errors import ArgumentError, DataError, StateError
from alphorn.preprocessing import image
from image_recipes import FLOWS, waves, write_folder

X, Y = waves(11, 8, 9), np.arange(11) % 3
AFFINE = FLOWS["affine"]


def doubled(x):
    return x * 2


def batches_of(flow, epochs=2):
    """Returns all batches of some epochs, as `fit` asks for them."""
    found = []
    for _ in range(epochs):
        found += [flow[i] for i in range(len(flow))]
        flow.on_epoch_end()
    return found


def same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for part, other in zip(a, b, strict=True):
            assert np.array_equal(part, other)


def flow_of(**options):
    return image.ImageDataGenerator(**AFFINE).flow(X, Y, batch_size=2, **options)


def small_net():
    model = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-6), loss)
    return model


def test_fit_takes_a_flow_epoch_after_epoch():
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = small_net()
        history = model.fit(flow_of(seed=4), epochs=3, verbose=0)
        assert len(history.history["loss"]) == 3
        assert np.isfinite(history.history["loss"]).all()
        weights.append(model.get_weights())
    same([weights[0]], [weights[1]])
    other = small_net()
    other.build((None, 8, 9, 3))
    other.set_weights(weights[0])
    flow = flow_of(shuffle=False, seed=1)
    assert np.isfinite(other.evaluate(flow, verbose=0))
    assert other.predict(image.ImageDataGenerator().flow(X, shuffle=False), verbose=0).shape == (
        11,
        3,
    )


def test_fit_asks_for_the_rows_of_every_epoch_once():
    seen = []

    class Watched(image.NumpyArrayIterator):
        def _with_targets(self, images, index_array):
            seen.append(index_array)
            return super()._with_targets(images, index_array)

    flow = Watched(X, Y, image.ImageDataGenerator(), batch_size=4, shuffle=True, seed=1)
    small_net().fit(flow, epochs=3, verbose=0)
    rows = np.concatenate(seen).reshape(3, 11)
    assert (np.sort(rows, axis=1) == np.arange(11)).all()
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("options", [{}, {"seed": 5}, {"seed": 5, "shuffle": False}], ids=str)
def test_batches_made_ahead_are_those_made_one_by_one(options):
    np.random.seed(7)
    ahead = batches_of(flow_of(**options), 3)
    np.random.seed(7)
    slow = flow_of(**options)
    slow._can_look_ahead = lambda: False
    same(ahead, batches_of(slow, 3))


def test_leaving_an_epoch_early_changes_no_later_batch():
    straight, early = flow_of(seed=2), flow_of(seed=2)
    same([straight[0]], [early[0]])
    for flow in (straight, early):
        flow[1]
    assert early._ahead
    same([straight[5]], [early[5]])
    assert straight.total_batches_seen == early.total_batches_seen == 3
    slow = flow_of(seed=2)
    slow._can_look_ahead = lambda: False
    assert len([slow[i] for i in (0, 1, 5)]) == 3
    same([slow[2]], [early[2]])
    early.on_epoch_end()
    slow.on_epoch_end()
    same([slow[0], slow[1]], [early[0], early[1]])


def test_next_has_no_end_and_reset_begins_again():
    flow = flow_of(seed=3)
    sizes = [len(next(flow)[0]) for _ in range(13)]
    assert sizes == [2, 2, 2, 2, 2, 1] * 2 + [2]
    assert flow.batch_index == 1
    assert flow.total_batches_seen == 13
    flow.reset()
    assert flow.batch_index == 0
    assert len(list(zip(flow, range(3), strict=False))) == 3
    assert len(flow[-1][0]) == 1
    with pytest.raises(ArgumentError, match="6 batches"):
        flow[6]


def test_flows_are_copied_and_written():
    flow = flow_of(seed=3)
    for i in range(3):
        flow[i]
    others = [copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))]
    want = [flow[i] for i in range(3, 6)]
    for other in others:
        same([other[i] for i in range(3, 6)], want)


def test_a_users_function_that_draws_is_reproducible():
    def noisy(x):
        return x + np.random.normal(size=x.shape) + random.random() * 0

    def flow():
        generator = image.ImageDataGenerator(preprocessing_function=noisy, rotation_range=10)
        return generator.flow(X, Y, batch_size=2, seed=6)

    first, second = batches_of(flow()), batches_of(flow())
    same(first, second)
    assert not np.array_equal(first[0][0], first[6][0])


def test_a_users_function_that_draws_nothing_runs_on_one_thread_in_order():
    order = []

    def function(x):
        order.append(float(x[0, 0, 0]))
        return x

    generator = image.ImageDataGenerator(preprocessing_function=function)
    flow = generator.flow(X, Y, batch_size=2, shuffle=False, seed=1)
    batches_of(flow, 1)
    assert order == [float(x) for x in X[:, 0, 0, 0]]
    assert flow._can_look_ahead()
    state = np.random.get_state()[1].copy()
    batches_of(flow, 1)
    assert np.array_equal(state, np.random.get_state()[1])


def test_generators_of_ones_own():
    class Own(image.ImageDataGenerator):
        def get_random_transform(self, img_shape, seed=None):
            return {"tx": np.random.randint(1, 4)}

    class Black(image.ImageDataGenerator):
        def standardize(self, x):
            return x * 0

    first, second = (batches_of(Own().flow(X, Y, batch_size=2, seed=6)) for _ in range(2))
    same(first, second)
    assert not np.concatenate([b[0] for b in batches_of(Black().flow(X, Y, seed=1))]).any()


def test_iterators_of_ones_own():
    class Numbers(image.Iterator):
        def _get_batches_of_transformed_samples(self, index_array):
            return index_array + np.random.random()

    first, second = (batches_of(Numbers(5, 2, True, 1)) for _ in range(2))
    same(first, second)
    with pytest.raises(StateError, match="_get_batches_of_transformed_samples"):
        next(image.Iterator(5, 2, True, 1))
    with pytest.raises(ArgumentError, match="at least 1"):
        image.Iterator(5, 0, True, 1)


def test_seeds_leave_numpys_own_generator_alone():
    np.random.seed(9)
    want = np.random.random()
    np.random.seed(9)
    batches_of(flow_of(seed=4))
    assert np.random.random() == want


def test_images_are_written_for_a_look(tmp_path):
    folder = tmp_path / "made"
    flow = flow_of(seed=1, save_to_dir=folder, save_prefix="a", save_format="jpeg")
    batches_of(flow, 1)
    names = sorted(p.name for p in folder.iterdir())
    assert len(names) == 11
    assert {name.split("_")[1] for name in names} == {str(i) for i in range(11)}
    with Image.open(folder / names[0]) as picture:
        assert picture.size == (9, 8)


def test_masks_go_along_by_the_seed():
    images, masks = (
        image.ImageDataGenerator(**{**AFFINE, "channel_shift_range": 0}).flow(x, seed=1)
        for x in (X, X)
    )
    pair = next(zip(images, masks, strict=False))
    assert np.array_equal(*pair)


def test_normalization_is_what_it_says():
    generator = image.ImageDataGenerator(
        featurewise_center=True, featurewise_std_normalization=True, rescale=0.1
    )
    generator.fit(X)
    found = np.concatenate([generator.standardize(x.copy())[None] for x in X])
    assert np.abs(found.mean(axis=(0, 1, 2))).max() < 1e-3
    assert np.abs(found.std(axis=(0, 1, 2)) - 1).max() < 1e-3
    white = image.ImageDataGenerator(featurewise_center=True, zca_whitening=True)
    white.fit(waves(60, 3, 3) + np.random.default_rng(0).normal(size=(60, 3, 3, 3)) * 40)
    assert white.principal_components.shape == (27, 27)
    first = image.ImageDataGenerator(featurewise_center=True, data_format="channels_first")
    first.fit(X.transpose(0, 3, 1, 2))
    assert first.mean.shape == (3, 1, 1)
    assert np.allclose(
        image.ImageDataGenerator(rescale=0.5).standardize(np.full((2, 2, 1), 4, "uint8")), 2
    )


@pytest.mark.parametrize(
    "option", ["featurewise_center", "featurewise_std_normalization", "zca_whitening"]
)
def test_what_needs_fit_warns_without_it(option):
    options = {"featurewise_center": True, option: True}
    generator = image.ImageDataGenerator(**options)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        generator.standardize(X[0].copy())
    wanted = f"{option} does nothing yet: call generator.fit(images) first"
    assert wanted in [str(warning.message) for warning in found]


def test_normalizations_that_need_each_other_say_so():
    for options, changed in (
        ({"zca_whitening": True}, "featurewise_center"),
        ({"featurewise_std_normalization": True}, "featurewise_center"),
        ({"samplewise_std_normalization": True}, "samplewise_center"),
    ):
        with pytest.warns(UserWarning, match=f"makes {changed} True"):
            generator = image.ImageDataGenerator(**options)
        assert getattr(generator, changed)
    with pytest.warns(UserWarning, match="makes featurewise_std_normalization False"):
        image.ImageDataGenerator(
            featurewise_center=True, featurewise_std_normalization=True, zca_whitening=True
        )


def test_wrong_arguments_of_generators_and_flows():
    generator = image.ImageDataGenerator(validation_split=0.5)
    for wrong, error, message in (
        (lambda: image.ImageDataGenerator(fill_mode="edge"), ArgumentError, "'nearest'"),
        (lambda: image.ImageDataGenerator(zoom_range="x"), ArgumentError, "zoom_range"),
        (lambda: image.ImageDataGenerator(zoom_range=[1, 2, 3]), ArgumentError, "zoom_range"),
        (lambda: image.ImageDataGenerator(brightness_range=2), ArgumentError, "brightness_range"),
        (lambda: image.ImageDataGenerator(validation_split=2), ArgumentError, "fraction"),
        (lambda: image.ImageDataGenerator(data_format="last"), ArgumentError, "channels_last"),
        (lambda: generator.flow(X, Y[:3]), DataError, "11 images, 3 in y"),
        (lambda: generator.flow((X, Y[:3])), DataError, "x\\[1\\]\\[0\\]"),
        (lambda: generator.flow(X, sample_weight=Y[:3]), DataError, "sample_weight"),
        (lambda: generator.flow(X[0]), DataError, "4 axes"),
        (lambda: generator.flow(X, subset="test"), ArgumentError, "'validation'"),
        (lambda: generator.flow(X, np.arange(11), subset="training"), ArgumentError, "shuffle"),
        (lambda: generator.fit(X[0]), DataError, "4 axes"),
    ):
        with pytest.raises(error, match=message):
            wrong()
    with pytest.warns(UserWarning, match="is it the other one"):
        generator.flow(X.transpose(0, 3, 1, 2))
    with pytest.warns(UserWarning, match="is it the other one"):
        generator.fit(X.transpose(0, 3, 1, 2))
    split = generator.flow(X, np.arange(11), subset="validation", ignore_class_split=True)
    assert len(split.x) == 5


def test_a_list_of_images_is_no_pair():
    flow = image.ImageDataGenerator().flow(list(X), shuffle=False, seed=1)
    assert np.array_equal(next(flow), X)


@pytest.fixture
def folder(tmp_path):
    return tmp_path, write_folder(tmp_path)


def test_a_folder_trains_a_model(folder):
    place, table = folder
    generator = image.ImageDataGenerator(rescale=1 / 255, horizontal_flip=True)
    sizes = {"target_size": (6, 5), "batch_size": 2, "seed": 1}
    for flow in (
        generator.flow_from_directory(place, class_mode="sparse", **sizes),
        generator.flow_from_dataframe(table, place, class_mode="sparse", **sizes),
    ):
        history = small_net().fit(flow, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
    assert flow.class_indices == {"a cat": 0, "b-dög": 1}


@pytest.mark.parametrize("how", ["skip", "raise"])
def test_broken_images(folder, how):
    place, table = folder
    (place / "a cat" / "bad one.png").write_bytes(b"no image")
    whole = (place / "a cat" / "one.png").read_bytes()
    (place / "b-dög" / "half.png").write_bytes(whole[: len(whole) - 60])
    generator = image.ImageDataGenerator()
    table.loc[len(table)] = table.loc[0]
    table.loc[len(table) - 1, "filename"] = "a cat/bad one.png"

    def flows():
        yield generator.flow_from_directory(place, target_size=(6, 5), on_error=how)
        yield generator.flow_from_dataframe(table, place, target_size=(6, 5), on_error=how)

    if how == "raise":
        for flow in flows():
            with pytest.raises(DataError, match=r"(bad one|half)\.png cannot be read"):
                next(flow)
    else:
        with pytest.warns(UserWarning, match="files are no images and are left out"):
            found = list(flows())
        assert [len(f.skipped) for f in found] == [2, 1]
        for flow in found:
            assert flow.samples == flow.n == len(next(flow)[0]) == 5
    with pytest.raises(ArgumentError, match="'raise' or 'skip'"):
        generator.flow_from_directory(place, on_error="pass")


def test_folders_of_all_sorts(folder):
    place, _ = folder
    (place / "c empty").mkdir()
    (place / ".hidden").mkdir()
    (place / "notes.txt").write_text("no class")
    (place / "a cat" / "notpng").write_text("no image")
    (place / "a cat" / "loop").symlink_to(place, target_is_directory=True)
    (place / "b-dög" / "linked").symlink_to(place / "a cat" / "inner", target_is_directory=True)
    generator = image.ImageDataGenerator()
    plain = generator.flow_from_directory(place, class_mode="sparse")
    assert plain.class_indices == {"a cat": 0, "b-dög": 1, "c empty": 2}
    assert plain.samples == 5
    links = generator.flow_from_directory(place, class_mode="sparse", follow_links=True)
    assert links.samples > 5
    assert "b-dög/linked/three.ppm" in links.filenames
    chosen = generator.flow_from_directory(place, classes=["b-dög", "a cat"], class_mode="binary")
    assert chosen.class_indices == {"b-dög": 0, "a cat": 1}
    assert chosen.labels.tolist() == [0, 0, 1, 1, 1]
    flat = generator.flow_from_directory(place / "a cat", classes=["."], class_mode=None)
    assert flat.samples == 3
    kept = generator.flow_from_directory(place, target_size=(4, 4), keep_aspect_ratio=True)
    assert next(kept)[0].shape == (5, 4, 4, 3)


def test_wrong_folders_and_tables(folder, tmp_path_factory):
    place, table = folder
    generator = image.ImageDataGenerator()
    empty = tmp_path_factory.mktemp("empty")
    fd, ft = generator.flow_from_directory, generator.flow_from_dataframe
    (place / "third").mkdir()
    for wrong, message in (
        (lambda: fd(empty), "has no images"),
        (lambda: fd(place / "nowhere"), "is no folder"),
        (lambda: fd(place, classes=["dogs"]), "is no folder"),
        (lambda: fd(place, class_mode="one-hot"), "class_mode"),
        (lambda: fd(place, class_mode="binary"), 'say class_mode="sparse"'),
        (lambda: fd(place, color_mode="cmyk"), "color_mode"),
        (lambda: fd(place, subset="test"), "'training' or 'validation'"),
        (lambda: ft(table, place, x_col="path"), r"no column 'path' \(x_col\)"),
        (lambda: ft(table, place, y_col="label"), r"no column 'label' \(y_col\)"),
        (lambda: ft(table, place, weight_col="w"), r"no column 'w' \(weight_col\)"),
        (lambda: ft(table, place, weight_col="class"), "numbers"),
        (lambda: ft(table, place, y_col="left"), r"astype\(str\)"),
        (lambda: ft(table, place, class_mode="hot"), "class_mode"),
        (lambda: ft(table, place, y_col="left", class_mode="multi_output"), "a list of columns"),
        (lambda: ft(table, place, class_mode="binary", classes=["a cat"]), "2 classes"),
        (lambda: ft(table[:0], place), "no image of the DataFrame"),
    ):
        with pytest.raises((ArgumentError, DataError), match=message):
            wrong()
    with pytest.warns(UserWarning, match="5 rows are left out"), pytest.raises(DataError):
        ft(table, empty)
    with pytest.warns(UserWarning, match="classes mean nothing"):
        ft(table, place, class_mode=None, classes=["a cat"])


def test_tables_of_all_sorts(folder):
    place, table = folder
    generator = image.ImageDataGenerator()
    old = generator.flow_from_dataframe(
        table, place, y_col="left", class_mode="other", shuffle=False, target_size=(6, 5)
    )
    assert next(old)[1].tolist() == table["left"].tolist()
    some = generator.flow_from_dataframe(
        table, place, y_col="several", classes=["w", "v"], target_size=(6, 5), shuffle=False
    )
    assert some.class_indices == {"w": 0, "v": 1}
    assert next(some)[1].tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    whole = table.assign(filename=[place / name for name in table["filename"]])
    paths = generator.flow_from_dataframe(
        whole, class_mode=None, validate_filenames=False, target_size=(6, 5)
    )
    assert next(paths).shape == (5, 6, 5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = image.DataFrameIterator(table, place, class_mode="raw", y_col="left")
    assert alone.image_shape == (256, 256, 3)


def test_functions_for_pickled_generators():
    generator = image.ImageDataGenerator(preprocessing_function=doubled, **AFFINE)
    again = pickle.loads(pickle.dumps(generator))
    same(
        [next(generator.flow(X, Y, seed=1))],
        [next(again.flow(X, Y, seed=1))],
    )
