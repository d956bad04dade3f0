"""What is done with `preprocessing.image` and compared with the package keras-preprocessing.

The same recipes run in both: `record_images.py` keeps what they give there.
"""

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

MODES = ("nearest", "constant", "reflect", "wrap")
TRANSFORMS = {
    "rotated": {"theta": 25},
    "shifted": {"tx": 2.4, "ty": -3.7},
    "whole": {"tx": 2, "ty": -3},
    "sheared": {"shear": 15},
    "zoomed": {"zx": 1.4, "zy": 0.6},
    "all": {"theta": -40, "tx": 1.3, "ty": 2.2, "shear": 12, "zx": 0.8, "zy": 1.9},
}
LAST = {"row_axis": 0, "col_axis": 1, "channel_axis": 2}
FLOWS: dict[str, dict] = {
    "plain": {},
    "affine": {
        "rotation_range": 20,
        "width_shift_range": 0.1,
        "height_shift_range": 0.2,
        "shear_range": 10.0,
        "zoom_range": 0.2,
        "channel_shift_range": 10.0,
        "horizontal_flip": True,
        "vertical_flip": True,
    },
    "pixels": {"width_shift_range": 3, "height_shift_range": 2.0, "fill_mode": "constant"},
    "choices": {"width_shift_range": [1, 3], "height_shift_range": [0.1, 0.3], "cval": 9.0},
    "zooms": {"zoom_range": [0.5, 0.9], "fill_mode": "reflect", "interpolation_order": 3},
    "nearest": {"rotation_range": 90, "fill_mode": "wrap", "interpolation_order": 0},
    "rescaled": {"rescale": 1 / 255, "preprocessing_function": lambda x: x + 3},
    "samples": {"samplewise_center": True, "samplewise_std_normalization": True},
    "features": {"featurewise_center": True, "featurewise_std_normalization": True},
    # Six images do not fill the space: with a small epsilon the rest of it is rounding.
    "whitened": {"featurewise_center": True, "zca_whitening": True, "zca_epsilon": 100.0},
    "bright": {"brightness_range": (0.5, 1.5)},
    "double": {"rotation_range": 10, "dtype": "float64"},
}


def waves(rows: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Returns smooth images with values from 0 to 255, all different."""
    r, y, x, c = np.meshgrid(
        *(np.arange(n, dtype="float64") for n in (rows, height, width, channels)), indexing="ij"
    )
    image = np.sin(0.35 * y + 0.7 * c + r) + np.cos(0.3 * x - 0.5 * c + 2 * r)
    return ((image + 2) / 4 * 255).astype("float32")


def transforms(image: Any) -> dict[str, np.ndarray]:
    """Every kind of transform in every fill mode; integers; splines."""
    out = {}
    x = waves(1, 11, 13)[0]
    for mode in MODES:
        for name, values in TRANSFORMS.items():
            out[f"transform {name} {mode}"] = image.apply_affine_transform(
                x, **values, fill_mode=mode, cval=7.0
            )
    for order in (0, 1, 3):
        out[f"integers {order}"] = image.apply_affine_transform(
            x.astype("uint8"), **TRANSFORMS["all"], order=order
        )
        if order != 1:
            out[f"order {order}"] = image.apply_affine_transform(
                x, **TRANSFORMS["all"], order=order, fill_mode="constant"
            )
    np.random.seed(3)
    out["random_rotation"] = image.random_rotation(x, 30, **LAST)
    out["random_shift"] = image.random_shift(x, 0.2, 0.3, **LAST, fill_mode="reflect")
    out["random_shear"] = image.random_shear(x, 20, **LAST)
    out["random_zoom"] = image.random_zoom(x, (0.5, 1.5), **LAST)
    out["random_channel_shift"] = image.random_channel_shift(x, 50.0, 2)
    out["random_brightness"] = image.random_brightness(x, (0.2, 2.0))
    out["apply_channel_shift"] = image.apply_channel_shift(x, 11.5, 2)
    out["apply_brightness_shift"] = image.apply_brightness_shift(x, 0.4)
    out["flip_axis"] = image.flip_axis(x, 1)
    out["matrix"] = image.transform_matrix_offset_center(np.diag([2.0, 0.5, 1]), 5, 8)
    out["first"] = image.img_to_array(
        image.array_to_img(x.transpose(2, 0, 1), "channels_first"), "channels_first"
    )
    return out


def flows(image: Any) -> dict[str, np.ndarray]:
    """Batches of two epochs, by `next` and by place; three kinds of beginnings."""
    out = {}
    x, y = waves(6, 8, 9), np.arange(6) % 3
    for name, options in FLOWS.items():
        generator = image.ImageDataGenerator(**options)
        if name in ("features", "whitened"):
            generator.fit(x, augment=name == "features", rounds=2, seed=4)
        batches = generator.flow(x, y, batch_size=4, seed=11)
        found = [next(batches) for _ in range(4)]
        out[f"flow {name} x"] = np.concatenate([b[0] for b in found])
        out[f"flow {name} y"] = np.concatenate([b[1] for b in found])
    generator = image.ImageDataGenerator(**FLOWS["affine"], validation_split=0.5)
    batches = generator.flow(x, y, batch_size=2, seed=5, sample_weight=np.arange(6) / 4)
    found = []
    for _ in range(2):
        found += [batches[i] for i in range(len(batches))]
        batches.on_epoch_end()
    for part, name in enumerate("xyw"):
        out[f"epochs {name}"] = np.concatenate([b[part] for b in found])
    np.random.seed(21)
    batches = generator.flow(x, batch_size=4)
    out["global"] = np.concatenate([next(batches), next(batches)])
    for subset in ("training", "validation"):
        batches = generator.flow((x, [y, y + 1]), y, 3, shuffle=False, seed=1, subset=subset)
        (images, *others), labels = next(batches)
        out[f"{subset} x"], out[f"{subset} y"] = images, labels
        out[f"{subset} others"] = np.stack(others)
    first = image.ImageDataGenerator(
        rotation_range=30, data_format="channels_first", horizontal_flip=True
    )
    out["first flow"] = next(first.flow(x.transpose(0, 3, 1, 2), seed=2))
    out["seeded"] = generator.random_transform(x[0], seed=8)
    return out


def write_folder(folder: Any) -> pd.DataFrame:
    """Writes images of two classes in several modes, and returns their table."""
    images = waves(5, 9, 7).astype("uint8")
    gray = waves(1, 6, 6, 1)[0, :, :, 0]
    files = {
        "a cat/one.png": Image.fromarray(images[0]),
        "a cat/two.BMP": Image.fromarray(images[1]),
        "a cat/inner/three.ppm": Image.fromarray(images[2]),
        "b-dög/vier.png": Image.fromarray(gray.astype("uint8")),
        "b-dög/five.tif": Image.fromarray(images[4]),
    }
    for name, picture in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        picture.save(path)
    names = list(files)
    return pd.DataFrame(
        {
            "filename": names,
            "class": [name.split("/")[0] for name in names],
            "several": [["u"], ["u", "v"], ["w"], ["v"], ["u", "w"]],
            "left": [1.5, 2.5, 3.5, 4.5, 5.5],
            "right": [5.0, 4.0, 3.0, 2.0, 1.0],
            "weight": [0.5, 1.0, 1.5, 2.0, 2.5],
        }
    )


def files(image: Any, folder: Any) -> dict[str, np.ndarray]:
    """Batches from a folder and from a table, of every class mode."""
    out: dict[str, np.ndarray] = {}
    table = write_folder(folder)
    generator = image.ImageDataGenerator(horizontal_flip=True, validation_split=0.4)
    shape = {"target_size": (6, 5), "batch_size": 3, "seed": 7}
    for mode in ("categorical", "binary", "sparse", "input", None):
        batches = generator.flow_from_directory(folder, class_mode=mode, **shape)
        keep(out, f"folder {mode}", [next(batches), next(batches)])
    for color in ("grayscale", "rgba"):
        batches = generator.flow_from_directory(
            folder, class_mode=None, color_mode=color, interpolation="bilinear", **shape
        )
        keep(out, f"folder {color}", [next(batches)])
    for subset in ("training", "validation"):
        batches = generator.flow_from_directory(folder, subset=subset, shuffle=False, **shape)
        out[f"folder {subset} names"] = np.array([os.path.normpath(f) for f in batches.filenames])
        out[f"folder {subset} classes"] = batches.classes
    columns = {
        "categorical": "class",
        "binary": "class",
        "sparse": "class",
        "raw": ["left", "right"],
        "multi_output": ["left", "right"],
        "input": "class",
        None: "class",
    }
    for mode, column in columns.items():
        batches = generator.flow_from_dataframe(
            table, folder, y_col=column, class_mode=mode, weight_col="weight", **shape
        )
        keep(out, f"table {mode}", [next(batches), next(batches)])
    batches = generator.flow_from_dataframe(table, folder, y_col="several", **shape)
    keep(out, "table several", [next(batches)])
    batches = generator.flow_from_dataframe(table, folder, subset="validation", **shape)
    keep(out, "table validation", [next(batches)])
    return out


def keep(out: dict[str, np.ndarray], name: str, batches: list[Any]) -> None:
    """Puts the parts of batches into `out`, end to end."""
    parts = [list(b) if isinstance(b, tuple) else [b] for b in batches]
    for i, same in enumerate(zip(*parts, strict=True)):
        if isinstance(same[0], list):
            for j, column in enumerate(zip(*same, strict=True)):
                out[f"{name} {i}.{j}"] = np.concatenate(column)
        else:
            out[f"{name} {i}"] = np.concatenate(same)


def everything(image: Any, folder: Any) -> dict[str, np.ndarray]:
    """All recipes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {**transforms(image), **flows(image), **files(image, folder)}
