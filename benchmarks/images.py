"""Times what is done with images, on one module, as JSON lines.

    python -m benchmarks.images [alphorn | tf_keras | keras_preprocessing]

All on one thread, so that figures are of the work and not of the cores.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

FULL = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 0.1,
    "zoom_range": 0.2,
    "channel_shift_range": 10.0,
    "horizontal_flip": True,
}


def best(function: Callable[[], Any], rounds: int = 5) -> float:
    """Returns the milliseconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def single_thread() -> None:
    """Has OpenCV, where it is, use one thread."""
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)


def main() -> None:
    """Prints a line for each job."""
    module = sys.argv[1] if len(sys.argv) > 1 else "alphorn"
    library = importlib.import_module(module)
    image = library.image if module == "keras_preprocessing" else library.preprocessing.image
    single_thread()
    images = (np.random.default_rng(5).random((256, 96, 96, 3)) * 255).astype("float32")

    def flow(**options: Any) -> Callable[[], Any]:
        batches = image.ImageDataGenerator(**options).flow(images, shuffle=False, seed=1)
        return lambda: [next(batches) for _ in range(len(batches))]

    jobs = {f"full affine, {m}": flow(**FULL, fill_mode=m) for m in ("nearest", "constant", "wrap")}
    jobs |= {
        "flips and rescale": flow(horizontal_flip=True, rescale=1 / 255),
        "random_rotation x64": lambda: [image.random_rotation(i, 30, 0, 1, 2) for i in images[:64]],
    }
    for name, job in jobs.items():
        print(json.dumps({"module": module, "job": name, "ms": round(best(job), 1)}))


if __name__ == "__main__":
    main()
