"""Programs of 2016 to 2019 run unmodified by `python -m alphorn`."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import alphorn
from alphorn.legacy import install
from alphorn.legacy.tables import ROOTS

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


@pytest.fixture
def keras_is_alphorn() -> Iterator[None]:
    """Has `keras` mean Alphorn for a test: what is imported by that name waits outside."""
    names = {root.split(".")[0] for root in ROOTS}
    outside = {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] in names}
    before = alphorn.config.floatx(), np.random.get_state()
    finder = install()
    finder.takes_tensorflow = True
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.split(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(outside)
        alphorn.backend.clear_session()
        np.random.set_state(before[1])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_a_program_runs_as_it_is(
    program: Path, keras_is_alphorn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    alphorn.utils.set_random_seed(0)
    text = program.read_text(encoding="utf-8")
    assert "alphorn" not in text
    left = runpy.run_path(str(program), run_name="__main__")
    models = [v for v in left.values() if isinstance(v, alphorn.Model)]
    assert models and "assert" in text
