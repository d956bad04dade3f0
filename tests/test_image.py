"""Images in files and in arrays, and their transforms, against keras-preprocessing and Keras 3."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import alphorn
from alphorn.errors import ArgumentError, DataError, ShapeError
from alphorn.preprocessing import image
from alphorn.preprocessing.image import affine, packages
from image_recipes import MODES, TRANSFORMS, everything, waves

RECORD = dict(np.load(Path(__file__).parent / "data" / "images.npz"))
# A step between neighbours in `waves` is below this; the bound is a 32nd of a pixel on each axis.
STEP = 50.0
BOUND = 2 * STEP / 32
# The recipes that read between pixels of float32, which OpenCV does.
LINEAR = tuple(
    "transform,random_rot,random_sh,random_zoom,flow affine x,flow pixels x,flow choices x,"
    "epochs x,global,training x,validation x,first flow,seeded".split(",")
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return everything(image, tmp_path_factory.mktemp("images"))


def test_the_record_has_every_recipe(found):
    assert set(found) == set(RECORD)


@pytest.mark.parametrize("name", RECORD)
def test_numbers_are_those_of_keras_preprocessing(name, found):
    ours, theirs = found[name], RECORD[name]
    assert ours.shape == theirs.shape
    if theirs.dtype.kind != "f":
        assert ours.dtype.kind == theirs.dtype.kind
        assert np.array_equal(ours, theirs)
        return
    spread = float(np.ptp(theirs)) or 1.0
    share = BOUND / 255 if name.startswith(LINEAR) else 1e-4
    error = np.abs(ours - theirs.astype("float64")) / spread
    assert error.max() <= share
    assert error.mean() <= share / 8


def by_scipy(x, matrix, offset, mode, cval, order=1):
    parts = [
        ndimage.affine_transform(x[..., c], matrix, offset, order=order, mode=mode, cval=cval)
        for c in range(x.shape[2])
    ]
    return np.stack(parts, axis=-1)


@given(
    st.sampled_from(affine.FILL_MODES),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5)),
    st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    st.lists(st.floats(-60, 60), min_size=2, max_size=2),
)
def test_the_fast_way_reads_where_scipy_does(mode, shape, matrix, offset):
    x = waves(1, *shape)[0]
    matrix, offset = np.array(matrix).reshape(2, 2), np.array(offset)
    whole = np.column_stack([matrix, offset])
    if affine._is_for_opencv(x, whole, 1):
        ours = affine._by_opencv(x, whole, mode, 5.0)
    else:
        ours = affine._by_scipy(x, whole, mode, 5.0, 1)
    theirs = by_scipy(x, matrix, offset, mode, 5.0)
    assert ours.dtype == x.dtype
    # Beyond an edge a value may jump to `cval`, which is then blended over a pixel.
    step = 260 if mode in ("grid-constant", "grid-wrap") else STEP
    error = np.abs(ours - theirs)
    # A place that is an edge to the last bit may fall on either side of it.
    rare = int(np.ceil(0.02 * error.size)) if mode in ("constant", "wrap") else 0
    assert np.sort(error.reshape(-1))[::-1][rare:].max(initial=0) <= 2 * step / 32


@pytest.mark.parametrize("mode", MODES)
def test_without_opencv_numbers_are_scipys(mode, monkeypatch):
    monkeypatch.setattr(affine, "opencv", lambda: None)
    x = waves(1, 9, 8)[0]
    for name, values in TRANSFORMS.items():
        ours = image.apply_affine_transform(x, **values, fill_mode=mode, cval=7.0)
        fast = RECORD.get(f"transform {name} {mode}")
        assert fast is not None
        assert ours.shape == x.shape
    c, s = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    whole = affine._matrix(25, 0, 0, 0, 1, 1, (9, 8))
    centred = image.transform_matrix_offset_center(turned, 9, 8)[:2]
    assert np.allclose(whole, centred, rtol=0, atol=1e-14)  # sums in another order
    ours = image.apply_affine_transform(x, theta=25, fill_mode=mode, cval=7.0)
    assert np.array_equal(ours, by_scipy(x, whole[:, :2], whole[:, 2], mode, 7.0))


def test_other_types_and_axes():
    x = waves(1, 9, 8)[0]
    turned = image.apply_affine_transform(x, theta=30)
    first = image.apply_affine_transform(
        x.transpose(2, 0, 1), theta=30, row_axis=1, col_axis=2, channel_axis=0
    )
    assert np.array_equal(first, turned.transpose(2, 0, 1))
    half = image.apply_affine_transform(x.astype("float16"), theta=30)
    assert half.dtype == np.float16
    assert np.abs(half.astype("float32") - turned).max() < 1
    many = image.apply_affine_transform(np.concatenate([x, x], -1), theta=30)
    assert np.abs(many[..., 3:] - turned).max() < BOUND
    np.random.seed(1)
    last = image.random_rotation(x, 30, 0, 1, 2)
    np.random.seed(1)
    assert np.array_equal(image.random_rotation(x.transpose(2, 0, 1), 30), last.transpose(2, 0, 1))
    np.random.seed(1)
    by_position = image.random_shift(x.transpose(2, 0, 1), 0.3, 0.3, 1, 2, 0, "constant", 3.0)
    assert (by_position == 3).any()


def saved(tmp_path, name, picture, **kwargs):
    picture.save(tmp_path / name, **kwargs)
    return tmp_path / name


@pytest.fixture
def pictures(tmp_path):
    """Returns one file of each kind."""
    colors = Image.fromarray(waves(1, 12, 9)[0].astype("uint8"))
    gray = waves(1, 12, 9, 1)[0, :, :, 0]
    deep = Image.fromarray((gray * 200).astype("uint16"))
    clear = Image.fromarray(waves(1, 12, 9, 4)[0].astype("uint8"))
    return {
        "png": saved(tmp_path, "rgb.png", colors),
        "jpeg": saved(tmp_path, "some name.with dots.JPEG", colors, quality=95),
        "bmp": saved(tmp_path, "ü.bmp", colors),
        "ppm": saved(tmp_path, "p.ppm", colors),
        "gif": saved(tmp_path, "g.gif", colors.convert("P")),
        "tiff": saved(tmp_path, "t.tiff", colors),
        "gray": saved(tmp_path, "gray.png", Image.fromarray(gray.astype("uint8"))),
        "deep": saved(tmp_path, "deep.png", deep),
        "deep tiff": saved(tmp_path, "deep.tif", deep),
        "deeper": saved(tmp_path, "deeper.tif", Image.fromarray((gray * 9000).astype("int32"))),
        "float": saved(tmp_path, "float.tif", Image.fromarray(gray)),
        "rgba": saved(tmp_path, "clear.png", clear),
        "palette": saved(tmp_path, "palette.png", colors.convert("P")),
        "bits": saved(tmp_path, "bits.png", colors.convert("1")),
        "cmyk": saved(tmp_path, "cmyk.jpg", colors.convert("CMYK")),
    }


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grayscale"])
def test_files_of_all_kinds_are_read_as_by_keras(pictures, mode):
    for path in pictures.values():
        ours, theirs = (k.utils.load_img(path, mode) for k in (alphorn, keras))
        assert ours.mode == theirs.mode
        for layout in ("channels_last", "channels_first"):
            arrays = [
                k.utils.img_to_array(p, layout) for k, p in ((alphorn, ours), (keras, theirs))
            ]
            assert arrays[0].dtype == arrays[1].dtype
            assert np.array_equal(*arrays)


@pytest.mark.parametrize("how", ["nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"])
@pytest.mark.parametrize("keep", [False, True])
def test_sizes_are_changed_as_by_keras(pictures, how, keep):
    for name in ("png", "deep", "rgba"):
        for size in ((5, 7), (30, 4), (12, 9)):
            ours, theirs = (
                k.preprocessing.image.load_img(pictures[name], "grayscale", size, how, keep)
                for k in (alphorn, keras)
            )
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_all_ways_to_name_an_image(pictures):
    path = pictures["png"]
    want = np.asarray(image.load_img(path))
    with open(path, "rb") as file:
        sources = [str(path), str(path).encode(), path.read_bytes(), io.BytesIO(path.read_bytes())]
        for source in [*sources, file]:
            assert np.array_equal(np.asarray(image.load_img(source)), want)
    with pytest.raises(ArgumentError, match="a path, an open file, or bytes"):
        image.load_img(3)


def test_the_old_orders_of_arguments(pictures):
    path = pictures["png"]
    gray = np.asarray(image.load_img(path, color_mode="grayscale", target_size=(4, 5)))
    assert np.array_equal(np.asarray(image.load_img(path, True, (4, 5))), gray)
    assert np.array_equal(
        np.asarray(image.load_img(path, grayscale=True, target_size=(4, 5))), gray
    )
    smooth = np.asarray(image.load_img(path, "rgb", (4, 5), "bilinear"))
    assert np.array_equal(np.asarray(image.load_img(path, False, (4, 5), "bilinear")), smooth)
    assert np.array_equal(
        np.asarray(image.load_img(path, False, "rgb", (4, 5), "bilinear")), smooth
    )
    assert image.load_img(path, False, "rgba").mode == "RGBA"
    assert image.load_img(path, False, None, "nearest").mode == "RGB"


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_are_written_as_by_keras(tmp_path, scale, channels):
    x = waves(1, 7, 6, channels)[0]
    for name in ("a.png", "b.bmp", "c.tiff"):
        paths = tmp_path / f"ours {name}", tmp_path / f"theirs {name}"
        for k, path in zip((alphorn, keras), paths, strict=True):
            k.utils.save_img(path, x, scale=scale)
        assert np.array_equal(*(np.asarray(Image.open(p)) for p in paths))
    for layout, array in (("channels_last", x), ("channels_first", x.transpose(2, 0, 1))):
        ours, theirs = (k.utils.array_to_img(array, layout, scale) for k in (alphorn, keras))
        assert ours.mode == theirs.mode
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    large = alphorn.utils.array_to_img(x[..., :1] * 100, scale=False)
    assert large.mode == "I"
    assert np.array_equal(np.asarray(large), (x[..., 0] * 100).astype("int32"))


def test_jpeg_has_no_fourth_channel(tmp_path):
    with pytest.warns(UserWarning, match="transparency"):
        image.save_img(tmp_path / "a.jpg", waves(1, 8, 8, 4)[0])
    with Image.open(tmp_path / "a.jpg") as written:
        assert written.mode == "RGB"
    file = io.BytesIO()
    image.save_img(file, waves(1, 8, 8)[0], file_format="jpg", quality=30)
    assert file.getvalue().startswith(b"\xff\xd8")


def test_lists_of_pictures(tmp_path):
    for name in ("b.png", "a.JPG", "in/c.tiff", "in/d.ppm", "no.txt", "notpng"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def names(*ext):
        return [str(Path(p).relative_to(tmp_path)) for p in image.list_pictures(tmp_path, *ext)]

    assert names() == ["a.JPG", "b.png", "in/d.ppm"]
    assert names("tiff|jpg") == ["a.JPG", "in/c.tiff"]
    assert names(("png", "tiff")) == ["b.png", "in/c.tiff"]
    assert names("ppm") == ["in/d.ppm"]


@pytest.mark.parametrize(
    "content", [b"", b"no image at all", None], ids=["empty", "text", "truncated"]
)
def test_an_unreadable_image_is_named(tmp_path, pictures, content):
    whole = pictures["jpeg"].read_bytes()
    path = tmp_path / "broken one.jpg"
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"broken one\.jpg cannot be read as an image"):
        image.load_img(path)
    with pytest.raises(OSError, match=r"broken one\.jpg"):
        image.load_img(path, target_size=(3, 3))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        image.load_img(tmp_path / "nowhere.png")


def test_wrong_arguments_say_what_would_be_right(pictures):
    x = waves(1, 8, 8)[0]
    for wrong, error, message in (
        (lambda: image.load_img(pictures["png"], "cmyk"), ArgumentError, "grayscale"),
        (lambda: image.load_img(pictures["png"], target_size=5), ArgumentError, "height, width"),
        (lambda: image.load_img(pictures["png"], "rgb", (3, 3), "cubic"), ArgumentError, "bicubic"),
        (lambda: image.img_to_array(np.ones(3)), ShapeError, "height, width"),
        (lambda: image.array_to_img(np.ones((2, 3, 3, 3))), ShapeError, "images"),
        (lambda: image.array_to_img(np.ones((3, 3, 7))), ShapeError, "7 channels"),
        (lambda: image.array_to_img(np.full((3, 3, 1), np.nan)), ArgumentError, "NaN"),
        (lambda: image.array_to_img(x, "last"), ArgumentError, "channels_last"),
        (lambda: image.apply_affine_transform(x, 3, fill_mode="edge"), ArgumentError, "nearest"),
        (lambda: image.apply_affine_transform(x[0], 3), ShapeError, "3 axes"),
        (lambda: image.random_zoom(x, 0.5, 0, 1, 2), ArgumentError, "smallest"),
        (lambda: image.random_brightness(x, 0.5), ArgumentError, "smallest"),
    ):
        with pytest.raises(error, match=message):
            wrong()


def test_brightness_without_scaling():
    x = waves(1, 8, 8)[0]
    same = image.apply_brightness_shift(x, 1.0, scale=False)
    assert np.abs(same - x).max() <= 1
    darker = image.apply_brightness_shift(x * 10 - 400, 0.5, scale=False)
    assert darker.max() <= 255 * 10 - 400
    first = image.apply_brightness_shift(x.transpose(2, 0, 1), 0.5, data_format="channels_first")
    assert np.array_equal(first.transpose(1, 2, 0), image.apply_brightness_shift(x, 0.5))


def test_modules_that_old_programs_find_here():
    from PIL import Image as pil_image
    from scipy import linalg

    assert image.np is np
    assert image.ndi is ndimage
    assert image.linalg is linalg
    assert image.pil_image is pil_image
    assert image.K.image_data_format() == "channels_last"
    for name in ("multiprocessing", "os", "re", "threading", "warnings"):
        assert getattr(image, name) is sys.modules[name]
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        image.nothing_of_the_kind  # noqa: B018


def test_images_cost_nothing_until_they_are_used():
    program = (
        "import sys; from alphorn.preprocessing import image\n"
        "print(*[m for m in ('PIL', 'scipy.ndimage', 'cv2', 'pandas', 'multiprocessing.pool')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # JAX needs a part of SciPy.
    assert not set(out.stdout.split()) - {"scipy.ndimage"}


def test_a_missing_package_is_named(monkeypatch, pictures):
    for name in ("PIL", "scipy", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'alphorn\[image\]'"):
        image.load_img(pictures["png"])
    with pytest.raises(ImportError, match=r"pip install 'alphorn\[image\]'"):
        packages.pillow_enhance()
    with pytest.raises(ImportError, match=r"SciPy: pip install 'alphorn\[image\]'"):
        image.apply_affine_transform(waves(1, 8, 8)[0].astype("float64"), theta=3)
    packages.opencv.cache_clear()
    with warnings.catch_warnings():
        assert packages.opencv() is None
    packages.opencv.cache_clear()


@pytest.mark.parametrize("case", [4.5, -4.5, 0.0, np.float32(2), np.nan])
def test_a_shift_stays_within_the_image_s_own_values(case):
    source = np.random.default_rng(0)
    floats = source.normal(size=(5, 4, 3)).astype("float32")
    holes = np.where(floats > 1.5, np.nan, floats)
    for x in (floats, holes, floats.astype("float64"), source.integers(0, 9, (5, 4, 3))):
        expected = np.clip(x + case, x.min(), x.max())
        found = image.apply_channel_shift(x, case)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected, equal_nan=True)
