"""Writes what Keras 2's preprocessing makes of the cases, for the tests to compare with.

python -m venv keras2 && keras2/bin/pip install keras-preprocessing==1.1.2 'numpy<2' six
PYTHONHASHSEED=0 keras2/bin/python tests/record_preprocessing.py
"""

import gzip
import json
from importlib import import_module
from pathlib import Path

from preprocessing_cases import results, written

RECORD = Path(__file__).parent / "data" / "preprocessing.json.gz"


def main() -> None:
    """Writes the record; the same record has the same bytes."""
    text, sequence = (import_module(f"keras_preprocessing.{n}") for n in ("text", "sequence"))
    found = {
        "results": results(text, sequence),
        "written": written(text, sequence),
    }
    RECORD.parent.mkdir(exist_ok=True)
    packed = gzip.compress(json.dumps(found, separators=(",", ":")).encode(), mtime=0)
    RECORD.write_bytes(packed)
    print(f"{RECORD}: {len(packed)} bytes")


if __name__ == "__main__":
    main()
