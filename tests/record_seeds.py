"""Writes the whole files that fuzzing begins with: `python tests/record_seeds.py`."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

from alphorn import preprocessing
from alphorn.callbacks import BackupAndRestore
from fuzzing import SEEDS, X, net


def packed(source: Path, target: Path) -> None:
    """Writes the arrays of a file again, compressed in chunks."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                new.require_group(name).attrs.update(item.attrs)
            elif item.shape:
                new.create_dataset(
                    name, data=item[()], compression="gzip", shuffle=True, fletcher32=True
                )
            else:
                new.create_dataset(name, data=item[()])

        old.visititems(copy)


def main() -> None:
    """Writes all of them."""
    SEEDS.mkdir(exist_ok=True)
    model = net()
    model.save(SEEDS / "net.keras")
    model.save(SEEDS / "net.h5")
    model.save_weights(SEEDS / "net.weights.h5")
    packed(SEEDS / "net.weights.h5", SEEDS / "packed.weights.h5")
    model.save_weights(SEEDS / "net.safetensors")
    model.save_weights(SEEDS / "net.weights.json", max_shard_size=1)
    (SEEDS / "net.json").write_text(model.to_json())
    with h5py.File(SEEDS.parent / "keras2" / "words_lstm.h5") as file:
        (SEEDS / "keras2.json").write_text(str(file.attrs["model_config"]))
    (SEEDS / "keras2.h5").write_bytes((SEEDS.parent / "keras2" / "words_lstm.h5").read_bytes())
    tokenizer = preprocessing.text.Tokenizer(num_words=5, oov_token="?")
    tokenizer.fit_on_texts(["the cat", "a dog"])
    (SEEDS / "tokenizer.json").write_text(tokenizer.to_json())
    with tempfile.TemporaryDirectory() as folder:
        backup = BackupAndRestore(folder, delete_checkpoint=False)
        model.fit(X, np.ones((2, 2), "float32"), verbose=0, shuffle=False, callbacks=[backup])
        (SEEDS / "latest.npz").write_bytes((Path(folder) / "latest.npz").read_bytes())
    contents = [("in/a.txt", b"one" * 9), ("in/deep/b.txt", b"two" * 9)]
    for mode in ("w", "w:gz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:
            for name, content in contents:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        (SEEDS / f"files.tar{'.gz' if mode[1:] else ''}").write_bytes(out.getvalue())
    with zipfile.ZipFile(SEEDS / "files.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents:
            archive.writestr(name, content)


if __name__ == "__main__":
    main()
