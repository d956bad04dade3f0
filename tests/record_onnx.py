"""Prints which layers' rows become ONNX that onnxruntime computes right: the table of docs/export.md.

Run where `alphorn[onnx]` is installed, which is too large for the tests:
`PYTHONPATH=src:tests python tests/record_onnx.py [names of rows]`.
"""

import collections
import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import onnxruntime

import alphorn
from alphorn.core.masked import Masked, is_masked, mask_of, unmask
from alphorn.core.symbol import is_symbol
from cases import LAYERS
from rows import QUICK, arguments, plain_data, state_of, symbols, weights_for, without_draws

# Of what was exported with sizes left open, some are fed: batches of unequal rows.
SIZES = ((3, 6), (2, 4))


def fault(case: Any, masked: bool) -> str:
    """Returns what is wrong with a row's ONNX, or nothing."""
    with without_draws(alphorn):
        layer = case.make(alphorn.layers)
        called = symbols(case, alphorn)
        outputs = layer(*called)
    layer.set_weights(weights_for(layer))
    inputs = jax.tree.leaves(called, is_leaf=is_symbol)
    model = alphorn.Model(inputs, outputs)
    x, state = plain_data(case), state_of(layer)
    vector = case.inputs == "vector"

    def alone(x: Any, mask: Any) -> tuple[list[Any], list[Any]]:
        given = Masked(x, mask) if masked else x
        found, _ = layer.stateless_call(*state, *arguments(case, given), training=False)
        found = jax.tree.leaves(found, is_leaf=is_masked)
        return [unmask(o) for o in found], [mask_of(o) for o in found]

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/m.onnx"
        signature = [Masked(x, np.ones(x.shape[:2], bool))] * len(inputs) if masked else None
        model.export(path, format="onnx", verbose=False, input_signature=signature)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows, steps in SIZES:
        part = x[:rows] if vector else x[:rows, :steps]
        mask = np.arange(steps) < np.array([steps - 1, steps, 2])[:rows, None]
        names = [i.name for i in session.get_inputs()]
        fed = {n: mask if n.startswith("mask") else part for n in names}
        wanted, masks = jax.jit(alone, compiler_options=QUICK)(part, mask)
        wanted += [m for m in masks if m is not None]
        masks += [None] * (len(wanted) - len(masks))
        for found, right, valid in zip(session.run(None, fed), wanted, masks, strict=True):
            right = np.asarray(right)
            if valid is not None and found.shape == right.shape:  # the others count nowhere
                valid = np.asarray(valid).reshape(valid.shape + (1,) * (right.ndim - valid.ndim))
                found, right = np.where(valid, found, 0), np.where(valid, right, 0)
            if found.shape != right.shape:
                return f"WRONG shape {found.shape} for {right.shape}"
            scale = max(np.abs(right).max(initial=0), 1e-9)
            if not np.abs(found.astype("f8") - right).max(initial=0) <= 1e-5 * scale:
                return "WRONG numbers"
    return ""


def main(only: list[str]) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    onnxruntime.set_default_logger_severity(4)
    right: dict[str, list[list[str]]] = collections.defaultdict(lambda: [[], []])
    total: collections.Counter[tuple[str, bool]] = collections.Counter()
    causes: dict[str, list[str]] = collections.defaultdict(list)
    for case in LAYERS:
        if only and case.name not in only and str(case) not in only:
            continue
        for masked in (False, True):
            if masked and case.inputs == "vector":
                continue
            total[case.name, masked] += 1
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    cause = fault(case, masked)
            except Exception as error:
                told = [line for line in str(error).splitlines() if "received" in line]
                cause = (told or str(error).splitlines() or [""])[0].strip()[:110]
            if cause:
                causes[cause].append(f"{case}{' with a mask' if masked else ''}")
            else:
                right[case.name][masked].append(str(case))
    whole, rows = [], []
    for name in dict.fromkeys(n for n, _ in total):
        counts = [(len(right[name][m]), total[name, m]) for m in (False, True)]
        if all(a == b for a, b in counts):
            whole.append(name)
            continue
        cells = ["right" if a == b else f"{a} of {b}" if a else "no" for a, b in counts]
        rows.append(f"| {name} | {cells[0]} | {cells[1] if counts[1][1] else ''} |")
    done = sum(len(found) for pair in right.values() for found in pair)
    print(f"{done} of {total.total()} programs right, {sum(map(len, causes.values()))} not\n")
    print(f"right, with a mask and without: {', '.join(whole)}\n")
    print("| layer | without a mask | with a mask |\n|---|---|---|")
    print("\n".join(rows), "\n")
    for cause, cases in sorted(causes.items(), key=lambda item: -len(item[1])):
        print(f"{len(cases)}: {cause}\n    {', '.join(cases)}")


if __name__ == "__main__":
    main(sys.argv[1:])
