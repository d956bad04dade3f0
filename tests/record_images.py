"""Records what keras-preprocessing gives for the recipes: python tests/record_images.py.

Needs the package itself, in an environment of its own:
pip install keras-preprocessing==1.1.2 'numpy<2' 'scipy<1.12' 'pillow<10' pandas six
"""

import tempfile
from pathlib import Path

import numpy as np

from image_recipes import everything

RECORD = Path(__file__).parent / "data" / "images.npz"

if __name__ == "__main__":
    from keras_preprocessing import image  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        found = everything(image, folder)
    small = {k: v.astype("float32") if v.dtype == "float64" else v for k, v in found.items()}
    RECORD.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORD, **small)
    print(f"{len(small)} arrays, {RECORD.stat().st_size} bytes")
