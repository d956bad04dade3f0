"""Damaged files of every kind, a few of each: `make fuzz` tries more."""

import hypothesis
import pytest

from fuzzing import KINDS, attempt

# As many as take half a second: a whole model takes longer to read than a text.
FEW = {
    ".keras, its config": 8,
    ".keras, its weights": 8,
    "JSON, its values": 8,
    ".h5 of Keras 2": 8,
}


@pytest.mark.parametrize("case", KINDS)
def test_a_damaged_file_is_refused_or_read_rightly(case, tmp_path) -> None:
    settings = hypothesis.settings(max_examples=FEW.get(case, 15))
    outcomes = attempt(case, tmp_path, settings).outcomes
    assert outcomes["refused"], "nothing was damaged"
